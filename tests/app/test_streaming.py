"""Streaming loses no text, redraws no finished text, and does not move the reader's view."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import textual.highlight
from textual._styles_cache import StylesCache
from textual.color import Color
from textual.content import Content

from fakes.screen_reader import column, lines, see, see_gone, see_in, text, wait_until
from fakes.scripted_app import Running, Setup, profile
from quantchat.app.textual_workarounds import free_lines_of_removed_widgets
from quantchat.app.widgets.transcript import TURNS_AT_ONCE, Transcript
from quantchat.app.widgets.turn_view import TurnView
from quantchat.session.conversation import Answer, AnswerState


async def test_the_whole_text_is_the_authority(setup: Setup) -> None:
    # The worker's last message says otherwise than its pieces: as when a character was cut.
    setup.left.holds_after = 2
    async with setup.running() as run:
        await run.ready()
        await run.ask()
        await see_in(run.pilot, 0, "The capital")
        answer = run.comparison.conversation.turns[0].answers[run.comparison.sides[0].label]
        answer.pieces[0] = "This is overwritten"
        run.left.gate.set()
        await run.settled()
        await see_in(run.pilot, 0, "The capital of France is Paris.")


async def test_fast_models_do_not_freeze_the_screen(setup: Setup) -> None:
    words = " ".join(f"w{i}" for i in range(4_000)) + " the end"
    for script in (setup.left, setup.right):
        script.answer = lambda request: words
        script.token_ms, script.batch = 0.5, 200
    setup.profile = profile(generation={"max_new_tokens": 50_000})
    async with setup.running() as run:
        await run.ready()
        await run.ask()
        # The prompt takes what is typed meanwhile.
        await run.pilot.press(*"typed")
        assert run.screen.prompt.text == "typed"
        await wait_until(run.pilot, lambda: not run.comparison.busy)
        await run.settled()
        for side in (0, 1):
            await see_in(run.pilot, side, "the end 4002 tokens")


async def test_code_is_coloured_once_at_the_end(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured: list[str] = []

    plain = textual.highlight.highlight

    def counted(code: str, **more: Any) -> Content:
        coloured.append(code)
        return plain(code, **more)

    monkeypatch.setattr("textual.highlight.highlight", counted)
    code = "".join(f"x{i} = {i}\n" for i in range(30))
    setup.left.answer = lambda request: f"```python\n{code}```"
    setup.left.holds_after = 40
    async with setup.running() as run:
        await run.ready()
        await run.ask()
        await see_in(run.pilot, 0, "x10 = 10")
        assert coloured == []
        run.left.gate.set()
        await run.settled()
        assert coloured == [code.rstrip()]
        await see_in(run.pilot, 0, "x29 = 29")


def read(run: Running) -> list[str]:
    """The conversation in both columns, without their scroll bars."""
    return [line[:39] + line[40:79] for line in lines(run.app)[3:13]]


async def test_reading_above_is_not_disturbed_until_asked(setup: Setup) -> None:
    setup.left.answer = setup.right.answer = lambda request: "\n\n".join(
        f"line {i}" for i in range(200)
    )
    setup.left.holds_after = setup.right.holds_after = 150
    async with setup.running((80, 24)) as run:
        await run.ready()
        await run.ask()
        await see_in(run.pilot, 0, "line 74")
        await see_in(run.pilot, 1, "line 74")
        await run.pilot.press("pageup")
        await see(run.pilot, "↓ more ^G")
        await see_gone(run.pilot, "line 74")

        # Both say the same and are scrolled alike: once both are drawn, they show the same lines.
        def drawn() -> bool:
            halves = [(line[1:39], line[41:79]) for line in lines(run.app)[3:13]]
            return any("line" in left for left, _ in halves) and all(
                left == right for left, right in halves
            )

        await wait_until(run.pilot, drawn, "both columns at the same place")
        before = read(run)
        run.left.gate.set()
        run.right.gate.set()
        await run.settled()
        await wait_until(run.pilot, drawn, "both columns drawn")
        assert read(run) == before
        await run.pilot.press("ctrl+g")
        await see_in(run.pilot, 0, "line 199")
        await see_in(run.pilot, 1, "line 199")
        await see_gone(run.pilot, "↓ more")
        # The next answer is followed again.
        await run.answered()
        await see_in(run.pilot, 0, "line 199")


async def test_a_window_that_is_dragged_stays_at_the_end(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.left.answer = setup.right.answer = lambda request: "\n\n".join(map(str, range(500, 520)))
    async with setup.running((80, 24)) as run:
        await run.ready()
        await run.answered()
        await see(run.pilot, "519")
        transcripts = [column.transcript for column in run.screen.columns.pair]
        # Tall enough for all of it, and small again before the next frame.
        with monkeypatch.context() as tall:
            tall.setattr(Transcript, "max_scroll_y", property(lambda self: 0))
            for transcript in transcripts:
                transcript.on_resize()
        for transcript in transcripts:
            transcript.on_resize()
        await run.pilot.pause()
        await run.settled()
        assert all(transcript.following for transcript in transcripts)
        for side in (0, 1):
            await see_in(run.pilot, side, "519")


async def test_follow_can_be_turned_off(setup: Setup) -> None:
    setup.left.answer = setup.right.answer = lambda request: "\n\n".join(map(str, range(500, 600)))
    setup.left.holds_after = setup.right.holds_after = 20
    async with setup.running((80, 24)) as run:
        await run.ready()
        await run.ask()
        for side in (0, 1):
            await see_in(run.pilot, side, "519")
        await run.pilot.press("ctrl+g")
        await see(run.pilot, "Not following new text")
        run.left.gate.set()
        run.right.gate.set()
        await run.settled()
        await see(run.pilot, "↓ more ^G")
        assert "599" not in text(run.app)
        await run.pilot.press("ctrl+g")
        await see(run.pilot, "599")


async def test_short_answers_stand_at_the_top(setup: Setup) -> None:
    async with setup.running((80, 24)) as run:
        await run.ready()
        await run.answered()
        await wait_until(run.pilot, lambda: "loaded in" in lines(run.app)[3])


async def test_a_load_time_of_minutes_stands_on_one_line(setup: Setup) -> None:
    setup.left.load_times_s = (85.7, 75.1, 174.2)
    async with setup.running((120, 40)) as run:
        await run.ready()
        await see_in(run.pilot, 0, "warm-up 174)")
        (line,) = [line for line in lines(run.app) if "import\xa086" in line]
        assert "warm-up\xa0174)" in line
        assert len("loaded in 5:38 min ") - len("loaded in 0.0 s ") < line.split(")")[1].index("▏")


async def test_tags_line_breaks_and_wide_characters_are_shown(setup: Setup) -> None:
    setup.left.answer = lambda request: "<think>hm</think>\nfirst\nsecond\n\n日本語 👩‍👩‍👧 <b>x</b>"
    async with setup.running((80, 24)) as run:
        await run.ready()
        await run.answered()
        await see_in(run.pilot, 0, "日本語")
        shown = [line[:40] for line in lines(run.app)]
        assert any("<think>hm</think>" in line for line in shown)
        assert [line for line in shown if line.strip("▏ ") == "first"]
        assert [line for line in shown if line.strip("▏ ") == "second"]
        await see_in(run.pilot, 0, "日本語 👩‍👩‍👧 <b>x</b>")


async def test_links_are_named_and_never_opened(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    setup.left.answer = lambda request: "See [this](https://example.org/a[b]c)."
    async with setup.running() as run:
        monkeypatch.setattr(run.app, "open_url", lambda url, **more: opened.append(url))
        await run.ready()
        await run.answered()
        await see_in(run.pilot, 0, "See this.")
        (y,) = [i for i, line in enumerate(lines(run.app)) if "See this." in line[:60]]
        x = lines(run.app)[y].index("this")
        await run.pilot.click(offset=(x + 1, y))
        await see(run.pilot, "https://example.org/a[b]c")
    assert opened == []


async def test_turns_survive_a_change_of_size(setup: Setup) -> None:
    async with setup.running((120, 40)) as run:
        await run.ready()
        await run.answered()
        for size in ((66, 20), (200, 50), (80, 24)):
            await run.pilot.resize_terminal(*size)
            await see(run.pilot, "The capital of France is Paris.")
        assert len(run.screen.query(TurnView)) == 2


async def test_the_end_is_held_when_the_terminal_shrinks(setup: Setup) -> None:
    setup.left.answer = setup.right.answer = lambda request: "\n\n".join(map(str, range(500, 512)))
    async with setup.running((120, 50)) as run:
        await run.ready()
        await run.answered()
        await see(run.pilot, "loaded in")  # all of it can be seen
        await run.pilot.resize_terminal(120, 24)
        await see(run.pilot, "12 tokens")
        assert "↓ more" not in text(run.app)


async def test_forgetting_and_asking_keep_the_columns_in_step(setup: Setup) -> None:
    async with setup.running((120, 50)) as run:
        await run.ready()
        for prompt in ("one?", "two?", "three?"):
            await run.answered(prompt)
        await run.pilot.press("f8")
        await see_gone(run.pilot, "one?")
        for side in (0, 1):
            shown = column(run.app, side)
            assert shown.index("two?") < shown.index("three?")


def remember(run: Running, count: int) -> None:
    """Let there have been `count` turns already."""
    for number in range(count):
        answers = [Answer(v.label, "together", AnswerState.DONE) for v in run.comparison.sides]
        for answer in answers:
            answer.text = f"answer {number}\n\nits end"
        run.comparison.conversation.begin(f"prompt {number}?", answers)


async def test_of_a_long_conversation_the_end_is_drawn_and_more_when_asked_for(
    setup: Setup,
) -> None:
    async with setup.running((80, 24)) as run:
        await run.ready()
        remember(run, 40)
        await run.answered("the newest?")
        left = run.screen.columns.pair[0].transcript

        def numbers() -> list[int]:
            return [view.turn.number for view in left.query(TurnView)]

        first = 42 - TURNS_AT_ONCE
        assert numbers() == list(range(first, 42))
        while left.scroll_y > 0:
            await run.pilot.press("pageup")
        await see(run.pilot, f"↑ {first - 1} earlier turns")
        await run.pilot.press("pageup")
        await wait_until(run.pilot, lambda: numbers() == list(range(first - TURNS_AT_ONCE, 42)))
        # Nothing is jumped over: what comes in sight ends where the first turn began.
        await see_in(run.pilot, 0, f"prompt {first - 1}?")
        while "prompt 0?" not in text(run.app):
            await run.pilot.press("pageup")
        await see_in(run.pilot, 0, "prompt 0?")
        assert "earlier turn" not in text(run.app)
        # The next prompt goes to the end again, and the oldest are let go.
        await run.answered("and now?")
        await wait_until(run.pilot, lambda: numbers() == list(range(42 - TURNS_AT_ONCE + 1, 43)))
        await see_in(run.pilot, 0, "and now?")


async def test_the_last_turn_asked_anew_stays_the_last(setup: Setup) -> None:
    async with setup.running((80, 24)) as run:
        await run.ready()
        remember(run, 20)
        await run.answered("the newest?")
        await run.pilot.press("ctrl+r")
        await wait_until(run.pilot, lambda: run.comparison.conversation.turns[-1].number == 22)
        await wait_until(run.pilot, lambda: not run.comparison.busy)
        await run.settled()
        numbers = [view.turn.number for view in run.screen.columns.pair[0].query(TurnView)]
        assert numbers == [*range(10, 21), 22]


def test_drawn_lines_go_with_their_widget() -> None:
    free_lines_of_removed_widgets()
    black, white = Color(0, 0, 0), Color(255, 255, 255)
    drawn = StylesCache()
    inner, outer = drawn.get_inner_outer(black, white)
    assert (inner.background, outer.background) == (white, black)
    seen = weakref.ref(drawn)
    del drawn
    gc.collect()
    assert seen() is None
