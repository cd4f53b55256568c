"""A terminal that stops reading, is slow or is resized all the time delays nothing else."""

from __future__ import annotations

import json
import os
import pty
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.events import Resize
from textual.geometry import Size
from textual.message import Message

from fakes.screen_reader import wait_until
from fakes.scripted_app import Running, Setup
from fakes.terminal import Terminal
from quantchat.app.terminal_output import TerminalOutput

TESTS = Path(__file__).parent.parent
PROGRAM = TESTS / "fakes" / "run_synthetic.py"
ENTER, SAVE, QUIT, NEW_CHAT = "\r", "\x13", "\x11\x11", "\x0e"
TOKENS = 3000


@pytest.fixture
def session(own_folders: None, tmp_path: Path) -> Iterator[Terminal]:
    path = os.pathsep.join([str(TESTS), *sys.path])
    terminal = Terminal(
        [sys.executable, str(PROGRAM), str(tmp_path)],
        env={
            "PYTHONPATH": path,
            "QUANTCHAT_LOGS": str(tmp_path / "logs"),
            # Exported by something around it, and stale: the terminal's own size is what counts.
            "COLUMNS": "40",
            "LINES": "10",
        },
    )
    terminal.wait_for(lambda: terminal.text.count("● ready") == 2, "both ready")
    yield terminal
    terminal.close()


def wait(condition: Callable[[], Any], what: str) -> None:
    """Wait without reading from the terminal."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def saved(folder: Path) -> list[dict[str, Any]]:
    """The answers of the snapshots in `folder`."""
    files = sorted((folder / "snapshots").glob("*.json"))
    turns = [turn for file in files for turn in json.loads(file.read_text())["turns"]]
    return [answer for turn in turns for answer in turn["answers"]]


def ended(session: Terminal, folder: Path) -> list[dict[str, Any]]:
    session.type(QUIT)
    assert session.wait_for_exit() == 0
    answers: list[dict[str, Any]] = json.loads((folder / "report.json").read_text())["answers"]
    return answers


def test_a_terminal_that_stops_reading_stops_nothing_else(
    session: Terminal, tmp_path: Path
) -> None:
    session.type(f"prose 1000 {TOKENS}{ENTER}")
    session.wait_for_match(r"Paragraph \d")
    # From here on nobody reads. Each key is a frame, were it drawn: more than any buffer holds.
    for _ in range(120):
        session.type("x")
        time.sleep(0.04)

    # Keys are answered all the same, and the answers go on to their ends.
    def all_saved() -> bool:
        session.type(SAVE)
        time.sleep(0.2)
        return [len(one["ids"]) for one in saved(tmp_path)][-2:] == [TOKENS, TOKENS]

    wait(all_saved, "whole answers, saved")
    # It reads again: what is on the screen is what there is now.
    session.resize(120, 40)
    session.wait_for(lambda: session.text.count(f"{TOKENS} tokens ·") == 2, "both ends")
    for answer in ended(session, tmp_path):
        assert answer["whole"] and answer["in_order"] and answer["tokens"] == TOKENS, answer


def test_five_hundred_sizes_while_streaming(session: Terminal, tmp_path: Path) -> None:
    session.type(f"table 1000 {TOKENS}{ENTER}")
    session.wait_for_text("a note here")  # in each row
    for number in range(500):
        session.resize(30 + number * 7 % 170, 8 + number % 50)
        session.read(0.002)
    session.resize(120, 40)
    session.wait_for(lambda: session.text.count(f"{TOKENS} tokens ·") == 2, "both ends")
    for answer in ended(session, tmp_path):
        assert answer["whole"] and answer["in_order"] and answer["tokens"] == TOKENS, answer


def test_a_terminal_that_reads_no_more_can_be_left(session: Terminal, tmp_path: Path) -> None:
    session.type(f"prose 1000 {TOKENS}{ENTER}")
    session.wait_for_match(r"Paragraph \d")
    for number in range(100):
        session.resize(100 + number % 40, 40)
        time.sleep(0.005)
    session.type(QUIT)
    wait(lambda: session.process.poll() is not None, "the end")
    assert session.process.returncode == 0


async def test_two_sizes_that_wait_at_once_settle(setup: Setup) -> None:
    """As at a start in a window that takes its size meanwhile, while a frame is awaited."""
    async with setup.running((80, 24)) as run:
        await run.ready()
        told: list[Message] = []
        run.screen.message_signal.subscribe(
            run.app, lambda one: told.append(one) if isinstance(one, Resize) else None
        )
        with run.app.batch_update():
            for size in (Size(80, 25), Size(80, 24)):
                run.screen.post_message(Resize(size, size))
                run.screen.call_later(lambda: None)  # what stands between two is not one
            await wait_until(run.pilot, lambda: len(told) > 20 or not waiting(run), "the end")
        assert len(told) <= 2


def waiting(run: Running) -> bool:
    return not run.screen._message_queue.empty()


def test_output_waits_for_the_terminal_and_leaves_it_in_time() -> None:
    master, slave = pty.openpty()
    output = TerminalOutput(slave)
    text = "ä" * 500_000
    assert output.isatty() and os.get_blocking(slave)
    writing = threading.Thread(target=output.write, args=(text,))
    writing.start()
    read = b""
    while len(read) < len(text.encode()):
        read += os.read(master, 65536)
    writing.join()
    assert read.decode() == text
    # Nobody reads any more.
    writing = threading.Thread(target=output.write, args=(text,))
    writing.start()
    output.limit_waiting(0.1)
    writing.join()
    # The terminal is gone: nothing is raised.
    os.close(master)
    assert output.write("x") == 1
    output.close()
    os.close(slave)


def test_what_is_no_terminal_is_written_to_as_it_is(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        output = TerminalOutput(file.fileno())
        assert not output.isatty()
        output.write("ab\udc80")
        output.close()
    assert (tmp_path / "file").read_bytes() == b"ab?"
