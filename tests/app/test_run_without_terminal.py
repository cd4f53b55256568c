"""`quantchat run` saves what it measured if its terminal is closed, or if it was suspended."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fakes.terminal import Terminal
from quantchat.snapshot import store
from quantchat.snapshot.schema import MeasurementRecord, Snapshot

TESTS = Path(__file__).parent.parent
PROGRAM = [sys.executable, str(TESTS / "fakes" / "run_measured.py")]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


def saved(folder: Path) -> tuple[Snapshot, MeasurementRecord]:
    (path,) = (folder / "saved").glob("*.json")
    snapshot = store.load(path)
    assert snapshot.measurement is not None
    return snapshot, snapshot.measurement


@pytest.mark.parametrize("before", [[], ["nohup"]])
def test_the_terminal_goes_away(tmp_path: Path, before: list[str]) -> None:
    """It stops and saves; under nohup it goes on to its end."""
    terminal = Terminal(
        [*before, *PROGRAM, str(tmp_path)],
        env={"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        cwd=tmp_path,
    )
    try:
        until(lambda: (terminal.read(), (tmp_path / "waits").exists())[1])
        terminal.hang_up()
        if before:
            (tmp_path / "go").touch()
        terminal.process.wait(60)
        snapshot, measurement = saved(tmp_path)
        assert measurement.stopped == (not before)
        assert len(snapshot.turns) == (3 if before else 1)
    finally:
        terminal.close()
    if before:
        assert terminal.process.returncode == 0
        assert "B ÷ A" in (tmp_path / "nohup.out").read_text()


def test_a_run_that_was_stopped_and_continued_ends_by_ctrl_c(tmp_path: Path) -> None:
    terminal = Terminal(
        [*PROGRAM, str(tmp_path)],
        env={"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        cwd=tmp_path,
    )
    process = psutil.Process(terminal.process.pid)
    try:
        until(lambda: (terminal.read(), (tmp_path / "waits").exists())[1])
        process.suspend()
        until(lambda: process.status() == psutil.STATUS_STOPPED)
        process.resume()
        terminal.type("\x03")
        until(lambda: (terminal.read(), terminal.process.poll() is not None)[1])
        snapshot, measurement = saved(tmp_path)
        assert measurement.stopped
        assert len(snapshot.turns) == 1
    finally:
        terminal.close()


def test_the_screen_does_not_run_under_nohup(tmp_path: Path) -> None:
    """It takes standard input away, without which there is no screen: one line says so."""
    terminal = Terminal(["nohup", sys.executable, "-m", "quantchat", "demo"], cwd=tmp_path)
    try:
        assert terminal.wait_for_exit() == 2
    finally:
        terminal.close()
    (line,) = (tmp_path / "nohup.out").read_text().splitlines()
    assert "the screen needs a terminal" in line and "`quantchat run`" in line
