"""Measurements in rounds on the screen: start, stop, display and saving."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual import events

from fakes.screen_reader import see, see_gone, wait_until
from fakes.scripted_app import SIZES, Running, Setup
from quantchat.app.screens import progress
from quantchat.app.screens.measure import MeasuringScreen
from quantchat.app.screens.measure_plan import MeasurePlanScreen
from quantchat.snapshot import store
from quantchat.snapshot.schema import Snapshot
from quantchat.wire.messages import Generate


def saved(run: Running) -> list[Snapshot]:
    return [store.load(file) for file in sorted(Path(run.folder, "snapshots").glob("*.json"))]


async def begin(run: Running) -> None:
    await run.pilot.press("f12")
    await wait_until(run.pilot, lambda: isinstance(run.app.screen, MeasurePlanScreen), "the plan")
    # A key before that would go nowhere.
    await wait_until(run.pilot, lambda: run.app.focused is not None, "the cursor in it")


@pytest.mark.parametrize("size", SIZES)
async def test_rounds_end_in_a_table_and_a_snapshot(setup: Setup, size: tuple[int, int]) -> None:
    async with setup.running(size) as run:
        await run.ready()
        await run.answered("Why?")
        await begin(run)
        await see(run.pilot, "comparable speeds")
        await run.pilot.press("tab", "tab", "backspace", "3", "enter")
        await see(run.pilot, "Measured one at a time: 15 turns, 5 prompts, 3 rounds, 1 warm-up")
        await see(run.pilot, "1.500")
        (snapshot,) = saved(run)
        assert snapshot.measurement is not None
        assert (snapshot.measurement.rounds, snapshot.measurement.order) == (3, "in-turn")
        assert [turn.prompt for turn in snapshot.turns if turn.task is None] == ["Why?"]
        await run.pilot.press("escape")
        await see_gone(run.pilot, "95 % interval")
        # The conversation is as it was, and goes on.
        await run.answered("And now?")
        assert [turn.prompt for turn in run.comparison.conversation.turns] == ["Why?", "And now?"]


async def test_the_prompts_of_the_conversation_can_be_measured(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered("Why?")
        await begin(run)
        await run.pilot.press("down", "space", "tab", "tab", "enter")
        await see(run.pilot, "Measured one at a time: 5 turns, 1 prompt, 5 rounds")
        (snapshot,) = saved(run)
        assert {turn.prompt for turn in snapshot.turns} == {"Why?"}


@pytest.mark.parametrize(
    ("where", "key"),
    [("prompts", "enter"), ("order", "enter"), ("ignore_eos", "enter"), ("ignore_eos", "ctrl+s")],
)
async def test_it_begins_wherever_the_cursor_is(setup: Setup, where: str, key: str) -> None:
    async with setup.running((80, 24)) as run:
        await run.ready()
        await begin(run)
        await see(run.pilot, "Enter or ^S: measure")
        run.app.screen.query_one(f"#{where}").focus()
        await run.pilot.press(key)
        await see(run.pilot, "Measured one at a time: 25 turns")
        (snapshot,) = saved(run)
        assert snapshot.measurement is not None and not snapshot.measurement.ignore_eos


@pytest.mark.parametrize("size", SIZES[:2])
async def test_the_cursor_starts_at_the_top_and_nothing_moves(
    setup: Setup, size: tuple[int, int]
) -> None:
    async with setup.running(size) as run:
        await run.ready()
        await begin(run)
        await see(run.pilot, "Enter or ^S: measure")
        screen = run.app.screen
        before = {part: part.region for part in screen.query("*")}
        first = screen.query_one("#prompts")
        assert run.app.focused is first
        for _ in screen.focus_chain:
            await run.pilot.press("tab")
            assert {part: part.region for part in screen.query("*")} == before
        assert run.app.focused is first


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_chosen_is_seen_without_colour(setup: Setup, size: tuple[int, int]) -> None:
    async with setup.running(size) as run:
        await run.ready()
        await begin(run)
        for one in ("▐● one at a time", "▐ together: both", "▐ equal"):
            await see(run.pilot, one)
        await run.pilot.press("tab", "down", "space")
        await see(run.pilot, "▐● together: both")
        await see(run.pilot, "▐ one at a time")
        await run.pilot.press("tab", "tab", "tab", "space")
        await see(run.pilot, "▐✓ equal")


async def test_stopped_early_it_keeps_what_was_measured(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()

        def hold_in_round_two(request: Generate) -> str:
            if len([c for c in run.left.commands if isinstance(c, Generate)]) == 9:
                run.left.holds_after = 1
            return "Paris it is."

        setup.left.answer = hold_in_round_two
        await begin(run)
        await run.pilot.press("enter")
        await wait_until(run.pilot, lambda: run.left.holds_after, "round two")
        with pytest.raises(ValueError, match="stop it first"):
            run.comparison.ask("in between")
        await run.pilot.press("escape")
        await see(run.pilot, "stopped before the end")
        assert not run.comparison.busy
        (snapshot,) = saved(run)
        assert snapshot.measurement is not None and snapshot.measurement.stopped
        assert len(snapshot.turns) == 7


async def test_it_waits_for_both_sides(setup: Setup) -> None:
    setup.left.loading_gate = asyncio.Event()
    async with setup.running() as run:
        await run.pilot.press("f12")
        await see(run.pilot, "not ready yet: GPTQ 4-bit")
        assert not isinstance(run.app.screen, MeasurePlanScreen)


async def test_a_mistaken_number_is_told(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await begin(run)
        await run.pilot.press("tab", "tab", "backspace", "0", "enter")
        await see(run.pilot, "rounds: 0 is out of range (must be greater than or equal to 1)")
        await run.pilot.press("escape")
        await wait_until(run.pilot, lambda: run.app.screen is run.screen)


async def test_a_number_is_what_was_typed_however_fast(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await begin(run)
        await run.pilot.press("tab", "tab")
        for key, character in (("backspace", "\x7f"), ("3", "3"), ("enter", "\r")):
            run.app.post_message(events.Key(key, character))
        await see(run.pilot, "Measured one at a time: 15 turns, 5 prompts, 3 rounds")


async def test_a_program_that_ends_meanwhile_ends(setup: Setup) -> None:
    setup.left.holds_after = 1
    async with setup.running() as run:
        await run.ready()
        await begin(run)
        await run.pilot.press("enter")
        await wait_until(run.pilot, lambda: isinstance(run.app.screen, MeasuringScreen))
        await see(run.pilot, "warming up")
        await see(run.pilot, "Esc: stop")
        await run.pilot.press("ctrl+q")
    assert setup.left.closed and setup.right.closed


async def test_a_worker_that_does_not_stop_is_ended_by_a_second_esc(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "STOP_WAIT_S", -1.0)
    async with setup.running() as run:
        await run.ready()

        def hold_in_round_two(request: Generate) -> str:
            if len([c for c in run.left.commands if isinstance(c, Generate)]) == 9:
                run.left.holds_after, run.left.deaf = 1, True
            return "Paris it is."

        setup.left.answer = hold_in_round_two
        await begin(run)
        await run.pilot.press("enter")
        await wait_until(run.pilot, lambda: run.left.deaf, "round two")
        await run.pilot.press("escape")
        await see(run.pilot, "stopping")
        await run.pilot.press("escape")
        await see(run.pilot, "stopped before the end")
        left, right = run.comparison.sides
        assert left.failure is not None and "did not stop" in left.failure.reason
        assert right.failure is None
