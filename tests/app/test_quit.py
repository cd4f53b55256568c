"""Quitting by key: at once if everything is saved, else after a second press."""

from __future__ import annotations

import pytest

from fakes.screen_reader import see, text, wait_until
from fakes.scripted_app import Setup
from quantchat.app import app as application


async def test_quit_ends_the_workers(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("ctrl+c")
        assert run.app.is_running
        await run.pilot.press("ctrl+q")
        await wait_until(run.pilot, lambda: not run.app.is_running, "the end")
    assert run.left.closed and run.right.closed


@pytest.mark.parametrize("pieces", [0, 1, 5])
async def test_quit_in_the_middle_of_answers(setup: Setup, pieces: int) -> None:
    text_ = "\n\n".join(f"paragraph {i}" for i in range(50))
    for script in (setup.left, setup.right):
        script.answer, script.holds_after = (lambda request: text_), pieces
    async with setup.running() as run:
        await run.ready()
        await run.ask()
        run.left.gate.set()
        run.right.gate.set()
        await run.pilot.press("ctrl+q", "ctrl+q")
        await wait_until(run.pilot, lambda: not run.app.is_running, "the end")
    assert run.app.return_code == 0 and run.left.closed and run.right.closed


async def test_what_is_not_saved_is_asked_about_once(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("ctrl+q")
        await see(run.pilot, "^S saves the conversation. ^Q again quits without saving.")
        assert run.app.is_running
        await run.pilot.press("ctrl+q")
        await wait_until(run.pilot, lambda: not run.app.is_running, "the end")
    assert not list((run.folder / "snapshots").glob("*.json"))
    assert run.left.closed and run.right.closed


async def test_what_is_saved_is_left_at_once(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("ctrl+s")
        await see(run.pilot, "Snapshot saved")
        await run.pilot.press("ctrl+q")
        await wait_until(run.pilot, lambda: not run.app.is_running, "the end")


async def test_the_question_is_asked_anew_when_it_has_gone(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "CONFIRM_S", 0.0)
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("ctrl+q", "ctrl+q")
        assert run.app.is_running
        monkeypatch.setattr(application, "CONFIRM_S", 60.0)
        await run.pilot.press("f1")  # and from whatever is above the conversation
        await run.pilot.press("ctrl+q")
        await wait_until(run.pilot, lambda: "^Q again quits" in text(run.app), "the question")
        assert run.app.is_running
        await run.pilot.press("ctrl+q")
        await wait_until(run.pilot, lambda: not run.app.is_running, "the end")
