"""The divergence of two greedy answers: marked in both columns, described between them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fakes.screen_reader import see, see_gone, wait_until
from fakes.scripted_app import LEFT, RIGHT, SIZES, Running, Setup, profile
from fakes.scripted_worker import likely
from quantchat.app.widgets.divergence_mark import Place, find
from quantchat.features.agreement.turn_text import divergence_text
from quantchat.session.recorder import record
from quantchat.wire.messages import END, ScoreTokens, Stop, TokenScores


def part(setup: Setup, left: str, right: str) -> None:
    setup.left.answer, setup.right.answer = (lambda r: left), (lambda r: right)
    setup.right.token_scores = lambda request: likely(request, 0.58, 0.37)


def marked(run: Running) -> list[str]:
    """What is marked on the screen, in the order of its lines."""
    return [
        segment.text.strip()
        for strip in run.app.screen._compositor.render_strips()
        for segment in strip
        if segment.style is not None and segment.style.reverse and segment.style.bold
    ]


@pytest.mark.parametrize("size", SIZES)
async def test_the_line_tells_both_ways_and_both_columns_are_marked(
    setup: Setup, size: tuple[int, int]
) -> None:
    part(setup, "The capital of France is **Paris**.", "The capital of France is *the* city.")
    async with setup.running(size) as run:
        await run.ready()
        await run.answered()
        wide = "same for 5 tokens, then ‘**Paris**.’ 0.61 (‘*the*’ 0.30) / ‘*the*’ 0.58"
        await see(run.pilot, wide if size[0] > 80 else "‘**Paris**.’ 0.61 / ‘*the*’ 0.58")
        await wait_until(run.pilot, lambda: marked(run) == ["Paris", ".", "the"], "both marks")


async def test_parts_of_characters_are_told_by_their_ids(setup: Setup) -> None:
    part(setup, "One �", "One ��")
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        (asked,) = run.comparison.conversation.turns
        one, other = (answer.ids[1] for answer in asked.answers.values())
        assert one != other
        both = f"token {one} 0.61 (token {other} 0.30) / token {other} 0.58 (token {one} 0.37)"
        await see(run.pilot, both)
        (turn,) = record(run.comparison, run.machine).turns
        told = f"{LEFT} token {one} 0.610, token {other} 0.300; {RIGHT} token {other} 0.580"
        assert told in divergence_text(turn)


async def test_an_answer_that_ends_says_so(setup: Setup) -> None:
    part(setup, "One two", "One two three")
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await see(run.pilot, "same for 2 tokens, then end 0.61 (‘three’ 0.30) / ‘three’ 0.58")
        await wait_until(
            run.pilot,
            lambda: set(marked(run)) == {"ends here; the other answer goes on", "three"},
            "marks",
        )
        asked = [c for c in run.left.commands if isinstance(c, ScoreTokens)]
        assert asked[0].ids[-1] == END and asked[0].first == 2


async def test_an_answer_that_was_cut_off_does_not_part_there(setup: Setup) -> None:
    setup.left.reason = "length"
    part(setup, "One two", "One two three")
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await see(run.pilot, "same for 2 tokens")
        assert marked(run) == []
        assert not [c for c in run.left.commands if isinstance(c, ScoreTokens)]


async def test_sampled_answers_are_not_marked(setup: Setup) -> None:
    setup.profile = profile(generation={"temperature": 1.0})
    part(setup, "One two", "One three")
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await see(run.pilot, "(sampled: answers also differ by chance)")
        assert marked(run) == []


async def test_a_variant_that_cannot_tell_says_why(setup: Setup) -> None:
    part(setup, "One two", "One three")
    setup.right.token_scores = lambda request: TokenScores(
        request.number, problem="the server does not tell"
    )
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await see(run.pilot, "probabilities not known: the server does not tell")


async def test_the_next_prompt_does_not_wait_for_a_scoring(setup: Setup) -> None:
    part(setup, "One two", "One three")
    setup.left.scoring_gate = asyncio.Event()
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await wait_until(
            run.pilot,
            lambda: any(isinstance(c, ScoreTokens) for c in run.left.commands),
            "a request",
        )
        await run.answered("And now?")
        commands = [type(c).__name__ for c in run.left.commands]
        # Ended before the prompt is sent, so that the answer has the machine to itself.
        assert commands.index("StopScoring") < len(commands) - 1 - commands[::-1].index("Generate")
        assert not any(isinstance(c, Stop) for c in run.left.commands)
        first = run.comparison.conversation.turns[0]
        assert first.divergence is not None
        assert first.divergence.continuations[0].problem == "cancelled by another command"


async def test_the_key_goes_there(setup: Setup) -> None:
    same = "\n\n".join(f"line {i}" for i in range(60))
    rest = "\n\n".join(f"more {i}" for i in range(60))
    part(setup, f"{same}\n\nhere it is\n\n{rest}", f"{same}\n\nthere it was\n\n{rest}")
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("ctrl+right_square_bracket")
        await see(run.pilot, "No two greedy answers diverge")
        await run.answered()
        await see(run.pilot, "more 59")
        await see_gone(run.pilot, "here it is")  # the line has it until all is known
        await run.pilot.press("ctrl+right_square_bracket")
        await see(run.pilot, "here it is")
        await see(run.pilot, "there it was")
        await wait_until(run.pilot, lambda: marked(run) == ["here", "there"], "both marks")


plain = st.text("abc .,", min_size=1, max_size=60)


@given(plain, st.data())
def test_in_text_drawn_as_it_is_the_very_characters_are_marked(
    source: str, data: st.DataObject
) -> None:
    visible = [index for index, character in enumerate(source) if not character.isspace()]
    assume(visible)
    start = data.draw(st.sampled_from(visible))
    width = data.draw(st.integers(1, 20))
    lines = [source[at : at + width] for at in range(0, len(source), width)]
    place = find(lines, source, start, start + 1)
    assert place is not None
    assert (place.line, place.first) == (start // width, start % width)
    assert lines[place.line][place.first : place.last].rstrip() == source[start]


@given(st.lists(st.text("abc*_ \n", max_size=12), max_size=8), st.text("abc*_ \n", max_size=60))
def test_whatever_is_drawn_the_mark_is_within_its_line(lines: list[str], source: str) -> None:
    for start in range(len(source) + 1):
        place = find(lines, source, start, start + 2)
        assert place is None or 0 <= place.first < place.last <= len(lines[place.line])


def test_what_markdown_drops_and_adds_is_passed_over() -> None:
    assert find(["is Paris now"], "is **Paris** now", 5, 10) == Place(0, 3, 8)
    assert find([" • a c"], "- [a](http://b) c", 16, 17) == Place(0, 5, 6)
    assert find(["no more"], "no more", 7, 8) is None
