"""Cross-perplexity: each answer as the other variant scores it, readable without colours too."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.content import Content
from textual.style import Style

from fakes.screen_reader import see, see_gone, see_in
from fakes.scripted_app import LEFT, RIGHT, SIZES, Setup
from fakes.scripted_worker import likely
from quantchat.app.screens.cross_perplexity import STYLES, marked
from quantchat.features.agreement.turn_text import cross_perplexity_text
from quantchat.session.conversation import Answer
from quantchat.session.recorder import record
from quantchat.statistics.surprisal import LEVELS, CrossPerplexity, level
from quantchat.wire.messages import END, ScoreTokens, TokenScores

KEY = "ctrl+underscore"


@pytest.mark.parametrize("size", [(66, 24), *SIZES])
async def test_each_answer_has_its_perplexity_under_both(
    setup: Setup, size: tuple[int, int]
) -> None:
    setup.left.answer, setup.right.answer = (lambda r: "One two"), (lambda r: "One three four")
    setup.left.token_scores = lambda request: likely(request, own=0.5)
    setup.right.token_scores = lambda request: likely(request, own=0.25)
    async with setup.running(size) as run:
        await run.ready()
        await run.answered()
        await run.pilot.press(KEY)
        await see(run.pilot, "under itself: 2.000")
        await see(run.pilot, "under itself: 4.000")
        await see(run.pilot, f"under {RIGHT}: 4.000")
        await see(run.pilot, f"under {LEFT}: 2.000")
        await see(run.pilot, "p < 0.01")
        asked = [c for c in run.right.commands if isinstance(c, ScoreTokens) and c.first == 0]
        assert [request.ids[-1] for request in asked] == [END, END]
        await run.pilot.press("escape")
        await see_gone(run.pilot, "under itself")
        turn = record(run.comparison, run.machine).turns[0]
        assert f"{LEFT}'s answer: 2.00 under itself, 4.00 under {RIGHT}" in cross_perplexity_text(
            turn
        )


async def test_sides_that_were_swapped_are_swapped_here_too(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("f10", KEY)
        await see_in(run.pilot, 0, f"{RIGHT}: perplexity")
        await see_in(run.pilot, 1, f"{LEFT}: perplexity")


async def test_why_one_cannot_read_is_told(setup: Setup) -> None:
    setup.right.token_scores = lambda request: TokenScores(
        request.number, problem="it tells no probability"
    )
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press(KEY)
        await see(run.pilot, "cross-perplexity needs an answer of each variant")
        await run.answered()
        await run.pilot.press(KEY)
        await see(run.pilot, "under itself: – (it tells no probability)")


def test_levels() -> None:
    assert [level(math.log(p)) for p in (1, 0.5, 0.49, 0.1, 0.09, 0.01, 0.009)] == [
        *(0, 0),
        *(1, 1),
        *(2, 2),
        3,
    ]
    assert len(STYLES) == len(LEVELS) + 1


def test_levels_differ_without_colours() -> None:
    shapes = [Style.parse(style.split("$")[0]) for style in STYLES]
    assert len({(one.bold, one.underline, one.reverse) for one in shapes}) == len(STYLES)


@given(st.lists(st.tuples(st.sampled_from(["", "a", " b", "\n"]), st.floats(-20, 0)), min_size=1))
def test_the_text_is_whole_and_no_surprise_is_lost(tokens: list[tuple[str, float]]) -> None:
    pieces, logprobs = [piece for piece, _ in tokens], [value for _, value in tokens]
    answer = Answer("A", "together", pieces=pieces)
    content = marked(answer, CrossPerplexity("B", logprobs))
    assert content.plain == "".join(pieces)
    told = {span.style for span in content.spans}
    last = max((n for n, piece in enumerate(pieces) if piece), default=-1)
    seen = [level(value) for value in logprobs[: last + 1]]
    assert (STYLES[3] in told) == (3 in seen)
    assert isinstance(content, Content)


def test_perplexity() -> None:
    assert CrossPerplexity("B").perplexity is None
    assert CrossPerplexity("B", [math.log(0.5), math.log(0.125)]).perplexity == pytest.approx(4)


async def test_a_against_a_on_the_screen(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("ctrl+circumflex_accent")
        await see(run.pilot, "together")
        await see(run.pilot, "Compared with itself, one at a time")
        await run.pilot.press("escape")
        await see_gone(run.pilot, "Compared with itself, one at a time")
        assert not run.comparison.busy
