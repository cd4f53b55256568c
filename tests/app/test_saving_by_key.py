"""What leaves the screen by a key: snapshots, answers as a file."""

from __future__ import annotations

import json

from fakes.screen_reader import see, text, wait_until
from fakes.scripted_app import LEFT, Setup


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
