"""Saving by key: snapshots, and answers as a file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from fakes.screen_reader import see, text, wait_until
from fakes.scripted_app import LEFT, Setup
from quantchat import daemon_thread, files
from quantchat.app import crash_recovery


async def test_snapshot_is_saved_and_named(setup: Setup) -> None:
    async with setup.running((200, 50)) as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("ctrl+s")
        await see(run.pilot, "Snapshot saved")
        (path,) = (setup.folder / "snapshots").glob("*.json")
        assert path.name in text(run.app).replace(" ", "")
        saved = json.loads(path.read_text())
        answer = saved["turns"][0]["answers"][0]
        assert answer["text"] == "The capital of France is **Paris**."
        assert len(answer["times_ns"]) == 6


async def test_a_driver_that_hangs_holds_up_neither_the_screen_nor_its_end(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        run.machine.answers.clear()
        sampled = run.machine.samples
        await wait_until(run.pilot, lambda: run.machine.samples > sampled, "a sample that hangs")
        await run.answered()
        await run.pilot.press("ctrl+s")
        await see(run.pilot, "the GPU driver does not answer yet")
        await run.pilot.press("ctrl+q", "ctrl+q")
        await wait_until(run.pilot, lambda: not run.app.is_running, "the end")
    run.machine.answers.set()
    assert run.left.closed and run.right.closed


async def test_answers_go_to_a_file_neutral(setup: Setup) -> None:
    setup.left.answer = lambda request: "red \x1b[31malert\x1b[0m"
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("f7")
        await see(run.pilot, "Answers saved")
        (path,) = (setup.folder / "snapshots").glob("*.md")
        written = path.read_text()
        assert "red ␛[31malert␛[0m" in written and "\x1b" not in written
        assert f"# {LEFT}" in written and "TorchLinear 4-bit" in written
        assert path.stat().st_mode & 0o077 == 0


async def test_a_folder_that_cannot_be_written_is_one_clear_line(setup: Setup) -> None:
    (setup.folder / "snapshots").write_text("a file is in the way")
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        for key in ("ctrl+s", "f7"):
            await run.pilot.press(key)
            await see(run.pilot, "cannot save the")


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A network share that does not answer until this event is set."""
    answers, write_new = threading.Event(), files.write_new

    def write(path: Path, data: bytes) -> Path:
        answers.wait()
        return write_new(path, data)

    monkeypatch.setattr("quantchat.snapshot.store.write_new", write)
    yield answers
    answers.set()


async def test_while_a_share_hangs_keys_work_and_only_one_save_runs(
    setup: Setup, share: threading.Event
) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("ctrl+s")
        await run.pilot.press(*"typed")
        await wait_until(run.pilot, lambda: run.screen.prompt.text == "typed", "the keys")
        await run.pilot.press("ctrl+s")
        await see(run.pilot, "still being saved")
        await run.pilot.press("ctrl+q")
        await see(run.pilot, "Still saving")
        share.set()
        await see(run.pilot, "Snapshot saved")
        assert len(list((setup.folder / "snapshots").iterdir())) == 1
        await run.pilot.press("ctrl+q")
        await wait_until(run.pilot, lambda: not run.app.is_running, "the end")
    run.app.finish_saving()
    assert run.app.closing_lines() == []


@pytest.mark.parametrize("in_time", [True, False])
async def test_the_end_waits_for_a_snapshot_that_is_being_saved(
    setup: Setup, share: threading.Event, monkeypatch: pytest.MonkeyPatch, in_time: bool
) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("ctrl+s", "ctrl+q", "ctrl+q")
        await wait_until(run.pilot, lambda: not run.app.is_running, "the end")
    if in_time:
        wait = daemon_thread.wait_for_disk

        def answered(result: Future[Path], seconds: float) -> Path:
            share.set()
            return wait(result, seconds)

        monkeypatch.setattr(crash_recovery, "wait_for_disk", answered)
    else:
        monkeypatch.setattr(crash_recovery, "DISK_WAIT_S", 0.05)
    run.app.finish_saving()
    (line,) = run.app.closing_lines()
    if in_time:
        (path,) = (setup.folder / "snapshots").iterdir()
        assert line == f"saved {path}"
    else:
        assert line.startswith("unsaved work could not be saved: the disk did not answer")


async def test_a_chat_that_cannot_be_saved_in_time_is_not_replaced(
    setup: Setup, share: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantchat.app.screens.comparison_view.DISK_WAIT_S", 0.05)
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("ctrl+n")
        await see(run.pilot, "the disk did not answer")
        assert run.comparison.conversation.turns
        share.set()
