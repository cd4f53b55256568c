"""Unsaved work is saved when the program has to quit, and offered at the next start."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from fakes.saved_snapshots import snapshot
from fakes.screen_reader import see, see_gone, see_in, text, wait_until
from fakes.scripted_app import SIZES, Running, Setup
from fakes.scripted_machine import ScriptedMachine
from quantchat.app.app import QuantchatApp
from quantchat.app.screens.recovered import RecoveredScreen
from quantchat.snapshot import recovered, store

NOBODY_SAVED = "Recovered: not saved before"


def waiting(run: Running) -> list[Path]:
    return recovered.recovered_snapshots(run.folder / "snapshots")


async def test_a_signal_keeps_what_was_said(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered("Where?")
        run.app._end_by_signal(signal.SIGHUP)
        await wait_until(run.pilot, lambda: not run.app.is_running, "the end")
    assert run.app.return_code == 128 + signal.SIGHUP
    (kept,) = waiting(run)
    assert run.app.recovery_file == kept
    (turn,) = store.load(kept).turns
    assert turn.prompt == "Where?"
    assert [answer.text for answer in turn.answers] == ["The capital of France is **Paris**."] * 2


async def test_also_in_the_middle_of_an_answer(setup: Setup) -> None:
    setup.left.holds_after = setup.right.holds_after = 2
    async with setup.running() as run:
        await run.ready()
        await run.ask()
        for side in (0, 1):
            await see_in(run.pilot, side, "The capital")
        run.app.save_for_recovery()
        (kept,) = waiting(run)
        answers = store.load(kept).turns[0].answers
        assert [(a.state, a.text) for a in answers] == [("streaming", "The capital")] * 2


async def test_what_is_saved_is_not_kept_again(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        run.app.save_for_recovery()
        assert waiting(run) == []  # nothing was said
        await run.answered()
        await run.pilot.press("ctrl+s")
        await see(run.pilot, "Snapshot saved")
        run.app.save_for_recovery()
        assert waiting(run) == []
        await run.answered()
        for _ in range(2):
            run.app.save_for_recovery()
            assert len(waiting(run)) == 1


async def test_a_driver_that_hangs_does_not_hold_it_up(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        recovery = run.screen.recovery
        await wait_until(
            run.pilot,
            lambda: recovery.measured and len(recovery.measured.workers) == 2,
            "both workers",
        )
        run.machine.answers.clear()
        sampled = run.machine.samples
        await wait_until(run.pilot, lambda: run.machine.samples > sampled, "a sample that hangs")
        await run.answered()
        run.app.save_for_recovery()
        (kept,) = waiting(run)
        memory = store.load(kept).variants[0].memory
        assert memory is not None and memory.bytes == setup.left.process
        run.machine.answers.set()


async def test_a_folder_that_cannot_be_written_does_not_hold_up_the_end(
    setup: Setup, capfd: pytest.CaptureFixture[str]
) -> None:
    (setup.folder / "snapshots").write_text("a file is in the way")
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        run.app._end_by_signal(signal.SIGTERM)
        await wait_until(run.pilot, lambda: not run.app.is_running, "the end")
    assert run.app.recovery_file is None
    (said,) = run.app.closing_lines()
    assert said.startswith("unsaved work could not be saved: ") and "snapshots" in said
    assert run.left.closed and run.right.closed
    assert "cannot save the snapshot" in capfd.readouterr().err  # which is the screen's log


async def test_what_was_measured_is_kept(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered("before")
        await run.pilot.press("f12")
        await see(run.pilot, "rounds")
        run.left.holds_after = None
        answered = 0

        def hold_the_sixth(request: object) -> str:
            nonlocal answered
            answered += 1
            if answered == 6:
                run.left.holds_after = 0
            return "The capital of France is Paris."

        run.left.answer = hold_the_sixth
        await run.pilot.press("enter")
        await wait_until(run.pilot, lambda: answered == 6, "the middle of the measurement")
        run.app.save_for_recovery()
        (kept,) = waiting(run)
        run.app.save_for_recovery()  # as the end does that takes long
        assert waiting(run) == [kept]
        saved = store.load(kept)
        assert saved.turns[0].prompt == "before"
        assert any(turn.round is not None for turn in saved.turns)


# ---------------------------------------------------------------- what is replaced

REPLACES = {
    "new chat": ["ctrl+n"],
    "remove oldest": ["f8"],
    "edit": ["f4", "!", "enter"],
    "pair": ["ctrl+o", "down", "down", "enter"],
}


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
@pytest.mark.parametrize("keys", REPLACES.values(), ids=REPLACES)
async def test_what_nobody_saved_is_kept_before_it_is_replaced(
    setup: Setup, keys: list[str], size: tuple[int, int]
) -> None:
    async with setup.running(size) as run:
        await run.ready()
        await run.answered("Where?")
        for key in keys:
            await run.pilot.press(key)
        await see(run.pilot, "Saved the unsaved conversation for recovery")
        (kept,) = waiting(run)
        # Of the notice, and not of the screen: there a long path is wrapped between other text.
        assert str(kept) in [notice.message for notice in run.app._notifications]
        (turn,) = store.load(kept).turns
        assert turn.prompt == "Where?"
        assert [answer.text for answer in turn.answers] == [
            "The capital of France is **Paris**."
        ] * 2


@pytest.mark.parametrize("keys", REPLACES.values(), ids=REPLACES)
async def test_what_is_saved_is_replaced_without_keeping_it(setup: Setup, keys: list[str]) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered("Where?")
        await run.pilot.press("ctrl+s")
        await see(run.pilot, "Snapshot saved")
        before, pair = run.comparison.conversation.extent, run.comparison.pair
        for key in keys:
            await run.pilot.press(key)
        await wait_until(
            run.pilot,
            lambda: (run.comparison.conversation.extent, run.comparison.pair) != (before, pair),
            "it is replaced",
        )
        assert waiting(run) == []


async def test_what_cannot_be_kept_is_replaced_at_the_second_time(setup: Setup) -> None:
    (setup.folder / "snapshots").write_text("a file is in the way")
    async with setup.running() as run:
        await run.ready()
        await run.answered("Where?")
        await run.pilot.press("ctrl+n")
        await see(run.pilot, "discard")
        assert len(run.comparison.conversation.turns) == 1
        await run.pilot.press("ctrl+n")
        await wait_until(run.pilot, lambda: not run.comparison.conversation.turns, "a new chat")


@pytest.mark.parametrize("size", SIZES)
async def test_a_comparison_offers_it(setup: Setup, size: tuple[int, int]) -> None:
    folder = setup.folder / "snapshots"
    old = recovered.save(snapshot(), folder)
    new = recovered.save(snapshot(), folder)
    async with setup.running(size) as run:
        await see(run.pilot, NOBODY_SAVED)
        await see(run.pilot, "^S: save · Del: discard")
        # What is typed already decides nothing.
        await run.pilot.press(*"kd y")
        assert len(waiting(run)) == 2
        # The newest is asked about first, and then the other.
        await run.pilot.press("delete")
        await wait_until(run.pilot, lambda: waiting(run) == [old], "the first is gone")
        assert not new.exists()
        await see(run.pilot, NOBODY_SAVED)
        await run.pilot.press("ctrl+s")
        await wait_until(run.pilot, lambda: not waiting(run), "the second is kept")
        await see_gone(run.pilot, NOBODY_SAVED)
        assert len(list(folder.iterdir())) == 1
        # The comparison was loaded meanwhile.
        await run.ready()
        await run.answered()


async def test_it_can_be_put_off(setup: Setup) -> None:
    recovered.save(snapshot(), setup.folder / "snapshots")
    async with setup.running() as run:
        await see(run.pilot, NOBODY_SAVED)
        await run.pilot.press("escape")
        await see_gone(run.pilot, NOBODY_SAVED)
        assert len(waiting(run)) == 1


async def test_one_that_is_broken_is_told_of(setup: Setup) -> None:
    folder = setup.folder / "snapshots"
    good = recovered.save(snapshot(), folder)
    broken = folder / "29990101T000000Z-x.recovered.json"
    broken.write_text("{")
    async with setup.running() as run:
        await see(run.pilot, NOBODY_SAVED)
        await see(run.pilot, "is cut short")
        await run.pilot.press("ctrl+s")
        await wait_until(run.pilot, lambda: not good.exists(), "it is kept")
        assert broken.exists()


async def test_the_start_screen_offers_it_too(tmp_path: Path) -> None:
    kept = recovered.save(snapshot(), tmp_path)
    app = QuantchatApp(None, snapshots=tmp_path, make_sampler=ScriptedMachine)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, NOBODY_SAVED)
        await pilot.press("escape")
        await see_gone(pilot, NOBODY_SAVED)
        # In the list it is told from the others, and can be opened again.
        await see(pilot, "2026-11-03 14:25 recovered")
        await pilot.press("tab", "enter")
        await wait_until(pilot, lambda: isinstance(app.screen, RecoveredScreen), "it is open")
        await pilot.press("ctrl+s")
        await wait_until(pilot, lambda: not kept.exists(), "it is kept")
        await wait_until(pilot, lambda: "  recovered  " not in text(app), "the list is new")
        await see(pilot, "Snapshot saved")
