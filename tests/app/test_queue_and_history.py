"""Queued prompts, missing answers, a common history, and earlier answers on the screen."""

from __future__ import annotations

import asyncio

import pytest

from fakes.screen_reader import column, see, see_gone, see_in, text, wait_until
from fakes.scripted_app import LEFT, RIGHT, Setup
from quantchat.wire.messages import Failed

Size = tuple[int, int]
SIZES = [(80, 24), (120, 40)]


@pytest.mark.parametrize("size", SIZES)
async def test_a_prompt_is_queued_until_a_side_is_ready(setup: Setup, size: Size) -> None:
    setup.left.loading_gate = setup.right.loading_gate = asyncio.Event()
    async with setup.running(size) as run:
        await see(run.pilot, "◌ loading")
        await run.ask()
        for side in (0, 1):
            await see_in(run.pilot, side, "queued until the variant is ready · Esc")
        await run.pilot.press("escape")
        await wait_until(run.pilot, lambda: run.screen.prompt.text == "Where is Paris?", "back")
        await see_gone(run.pilot, "queued")
        await run.pilot.press("enter")
        await see(run.pilot, "queued")
        setup.left.loading_gate.set()
        await run.ready()
        for side in (0, 1):
            await see_in(run.pilot, side, "The capital of France is Paris.")


@pytest.mark.parametrize("size", SIZES)
async def test_a_side_says_why_it_lacks_a_turn_and_is_asked_it_by_one_key(
    setup: Setup, size: Size
) -> None:
    setup.right.loading_fails = Failed("internal", "a reason")
    async with setup.running(size) as run:
        await see_in(run.pilot, 0, "● ready")
        await see_in(run.pilot, 1, "✖ failed")
        await run.answered()
        await see_in(run.pilot, 1, "no answer: the variant had failed · Alt+M")
        await run.pilot.press("alt+m")
        await see(run.pilot, f"{RIGHT} is not loaded")
        run.right.loading_fails = None
        await run.pilot.press("f9")
        await run.ready()
        await run.pilot.press("alt+m")
        await see_in(run.pilot, 1, "The capital of France is Paris.")
        assert "no answer" not in text(run.app)


@pytest.mark.parametrize("size", SIZES)
async def test_the_line_says_whose_answers_are_continued(setup: Setup, size: Size) -> None:
    setup.left.answer = lambda request: "one"
    setup.right.answer = lambda request: "two"
    async with setup.running(size) as run:
        await run.ready()
        await run.answered("a?")
        assert "which differ" not in text(run.app)
        await run.answered("b?")
        await see(run.pilot, "each side continues its own answers, which differ")
        await run.pilot.press("alt+h")
        await wait_until(run.pilot, lambda: run.comparison.history == "left", "one history")
        await run.answered("c?")
        await see(run.pilot, f"both sides continue the answers of {LEFT}")


@pytest.mark.parametrize("size", SIZES)
async def test_regenerated_answers_are_paged_through(setup: Setup, size: Size) -> None:
    async with setup.running(size) as run:
        await run.ready()
        await run.answered()
        run.left.answer = lambda request: "Somewhere else."
        await run.pilot.press("ctrl+r")
        await see_in(run.pilot, 0, "Somewhere else. answers 2 of 2 · Alt+← Alt+→")
        await wait_until(run.pilot, lambda: not run.comparison.busy, "both are over")
        await run.pilot.press("alt+left")
        await see_in(run.pilot, 0, "The capital of France is Paris. answers 1 of 2")
        assert "Somewhere" not in column(run.app, 0)
        await run.pilot.press("alt+left")
        await see(run.pilot, "no earlier answers")
        await run.pilot.press("alt+right")
        await see_in(run.pilot, 0, "Somewhere else. answers 2 of 2")
