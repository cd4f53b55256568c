"""Folded thoughts, raw output and folded long prompts, each switched by one key."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.screen_reader import column, see, see_gone, see_in, wait_until
from fakes.scripted_app import Setup
from quantchat.session.recorder import record
from quantchat.snapshot import store
from quantchat.wire.messages import Generate, Message

Size = tuple[int, int]
SIZES = [(80, 24), (120, 40)]


@pytest.mark.parametrize("size", SIZES)
async def test_thoughts_are_folded_until_a_key_opens_them(setup: Setup, size: Size) -> None:
    setup.left.thought = lambda request: "They ask for a city."
    setup.left.holds_after = 3
    async with setup.running(size) as run:
        await run.ready()
        await run.ask()
        await see_in(run.pilot, 0, "▸ thinking, 3 tokens · Alt+T opens", "TTFA –")
        assert "They ask for a city" not in column(run.app, 0)
        await run.pilot.press("alt+t")
        await see_in(run.pilot, 0, "▾ thinking, 3 tokens They ask for")
        run.left.gate.set()
        await run.settled()
        await see_in(run.pilot, 0, "▾ thoughts, 5 tokens They ask for a city. The capital")
        await see_in(run.pilot, 0, "TTFA 250 ms")  # five tokens of 20 ms after a TTFT of 150 ms
        await run.pilot.press("alt+t")
        await see_in(run.pilot, 0, "▸ thoughts, 5 tokens · Alt+T opens The capital of France")
        assert "They ask for a city" not in column(run.app, 0)
        assert "TTFA" not in column(run.app, 1)  # it would repeat its TTFT


async def test_the_next_turn_gives_thoughts_to_the_template_apart_from_the_answer(
    setup: Setup, tmp_path: Path
) -> None:
    setup.left.thought = lambda request: "They ask."
    setup.left.answer = lambda request: "Paris."
    async with setup.running() as run:
        await run.ready()
        await run.answered("Where?")
        await run.answered("Sure?")
        last = [c for c in run.left.commands if isinstance(c, Generate)][-1]
        assert last.messages[1] == Message("assistant", "Paris.", "They ask.")
        saved = store.load(store.save(record(run.comparison, run.machine), tmp_path))
        answer = saved.turns[0].answers[0]
        assert (answer.thoughts, answer.thought_tokens) == ("They ask.", 2)
        assert answer.raw == "<think>They ask.</think>Paris."
        assert answer.timing.ttfa_ms == 190.0 and answer.timing.ttft_ms == 150.0


@pytest.mark.parametrize("size", SIZES)
async def test_a_key_shows_the_raw_output_of_one_side_or_both(setup: Setup, size: Size) -> None:
    setup.left.thought = lambda request: "Hm."
    async with setup.running(size) as run:
        await run.ready()
        await run.answered()
        rendered, raw = "The capital of France is Paris.", "The capital of France is **Paris**."
        await see_in(run.pilot, 0, rendered)
        await run.pilot.press("alt+r")
        await see_in(run.pilot, 0, "<think>Hm.</think>The capital")
        await see_in(run.pilot, 1, rendered)
        await run.pilot.press("alt+r")
        await see_in(run.pilot, 0, f"▸ thoughts, 1 token · Alt+T opens {rendered}")
        await see_in(run.pilot, 1, raw)
        await run.pilot.press("alt+r")
        await see_in(run.pilot, 0, "<think>Hm.</think>The capital")
        await see_in(run.pilot, 1, raw)
        await run.pilot.press("alt+r")
        await see_in(run.pilot, 1, rendered)


async def test_a_raw_output_streams_and_new_turns_are_raw_too(setup: Setup) -> None:
    setup.left.thought = lambda request: "Hm hm."
    setup.left.holds_after = 4
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("alt+r")
        await run.ask()
        await see_in(run.pilot, 0, "Hm hm.The capital")
        assert "thinking" not in column(run.app, 0)
        run.left.gate.set()
        await run.settled()
        await see_in(run.pilot, 0, "<think>Hm hm.</think>The capital of France is **Paris**.")


@pytest.mark.parametrize("size", SIZES)
async def test_long_prompts_are_folded(setup: Setup, size: Size) -> None:
    prompt = "\n".join(f"line {number}" for number in range(40))
    async with setup.running(size) as run:
        await run.ready()
        await run.answered(prompt)
        await see_in(run.pilot, 0, "line 3 … ▸ 40 lines, 309 characters (Alt+P opens)")
        assert "line 4 " not in column(run.app, 0)
        await run.pilot.press("alt+p")
        await see_in(run.pilot, 0, "line 39")
        await run.pilot.press("alt+p")
        await see_gone(run.pilot, "line 39")
        asked = [c for c in run.left.commands if isinstance(c, Generate)][-1]
        assert asked.messages[-1].content == prompt


async def test_alt_with_a_letter_writes_no_letter(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        from textual.events import Key

        run.screen.prompt.set_text("so ")
        for event in (Key("alt+r", "r"), Key("alt+q", "q")):
            run.app.post_message(event)
        await see(run.pilot, "raw output")
        await wait_until(run.pilot, lambda: run.screen.prompt.text == "so ", "no letter")
