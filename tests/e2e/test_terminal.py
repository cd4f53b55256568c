"""The real program with the real model in a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fakes.terminal import Terminal
from fakes.waiting import PATIENCE_S

pytestmark = pytest.mark.model

ESC, CTRL_S, CTRL_Q, ENTER = "\x1b", "\x13", "\x11\x11", "\r"
READY = "● ready"


@contextlib.contextmanager
def demo(demo_cache: Path, folder: Path, columns: int = 120, rows: int = 40) -> Iterator[Terminal]:
    """`quantchat demo`, on checkpoints that are made already."""
    terminal = Terminal(
        [sys.executable, "-m", "quantchat", "demo", "--snapshots", str(folder / "snapshots")],
        columns=columns,
        rows=rows,
        cwd=folder,
        env={
            "QUANTCHAT_CACHE": str(demo_cache),
            "QUANTCHAT_LOGS": str(folder / "logs"),
            "QUANTCHAT_CONFIG": str(folder / "config"),
        },
    )
    try:
        yield terminal
    finally:
        terminal.close()


def workers_of(terminal: Terminal) -> list[psutil.Process]:
    return psutil.Process(terminal.process.pid).children(recursive=True)


def column(terminal: Terminal, side: int) -> str:
    """The words on one half of the screen, without the frame, one space between any two."""
    half = terminal.screen.columns // 2
    rows = (line[side * half : (side + 1) * half] for line in terminal.lines)
    return " ".join(" ".join(rows).replace("▏", " ").split())


def saved(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "snapshots").glob("*.json")
    assert path.stat().st_mode & 0o077 == 0
    body: dict[str, Any] = json.loads(path.read_text())
    return body


def test_a_session(demo_cache: Path, tmp_path: Path) -> None:
    with demo(demo_cache, tmp_path, rows=50) as terminal:
        terminal.wait_for(lambda: terminal.text.count(READY) == 2, "both sides ready")
        workers = workers_of(terminal)
        assert len([w for w in workers if "bootstrap.py" in " ".join(w.cmdline())]) == 2

        # Both say what really runs, and that it is the CPU.
        terminal.wait_for_text("Linear4bit nf4, double quant", "4-bit g64", "no GPU")

        # A question to both; both know.
        terminal.type("What is the capital of France?")
        terminal.wait_for_text("capital of France?")
        terminal.type(ENTER)
        terminal.wait_for(
            lambda: all("Paris" in column(terminal, side) for side in (0, 1)), "two answers"
        )
        terminal.wait_for(lambda: terminal.text.count(READY) == 2, "the end of both answers")
        terminal.wait_for(lambda: terminal.text.count(" tokens · ") == 2, "all of both is drawn")
        shown = [column(terminal, side) for side in (0, 1)]

        # Another one, stopped in the middle: it ends, and what was said stays.
        terminal.type("Write a very long story about the sea." + ENTER)
        terminal.wait_for(
            lambda: all(re.search(r"\d now", column(terminal, side)) for side in (0, 1)),
            "both answering",
        )
        terminal.type(ESC)
        terminal.wait_for(lambda: terminal.text.count(READY) == 2, "both stopped")

        terminal.type(CTRL_S)
        terminal.wait_for_text("Snapshot saved")
        body = saved(tmp_path)
        first, second = body["turns"]
        assert first["prompt"] == "What is the capital of France?"
        for side, answer in enumerate(first["answers"]):
            assert answer["reason"] in ("eos", "length")
            assert len(answer["ids"]) == len(answer["times_ns"]) > 3
            # What was saved is what was on the screen, word for word.
            words = " ".join(answer["text"].split()).replace("**", "")
            assert words[:200] in shown[side]
        assert {answer["reason"] for answer in second["answers"]} <= {"stop", "eos"}
        assert body["variants"][0]["model_info"]["engine"] == "gptq"

        # Smaller, larger: it is drawn anew and nothing is lost.
        for columns, rows in ((80, 24), (60, 20), (200, 50)):
            terminal.resize(columns, rows)
            terminal.wait_for_text("ready", "quantchat")

        terminal.type(CTRL_Q)
        assert terminal.wait_for_exit() == 0
        _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
        assert not alive


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_survives(demo_cache: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Killed while both load: the terminal's end, a polite request, and the other kind."""
    with demo(demo_cache, tmp_path) as terminal:
        terminal.wait_for(lambda: len(workers_of(terminal)) >= 2, "the workers")
        workers = workers_of(terminal)
        os.kill(terminal.process.pid, number)
        terminal.wait_for_exit()
        _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
        assert not alive


def test_the_terminal_is_closed(demo_cache: Path, tmp_path: Path) -> None:
    with demo(demo_cache, tmp_path) as terminal:
        terminal.wait_for(lambda: len(workers_of(terminal)) >= 2, "the workers")
        workers = workers_of(terminal)
        terminal.hang_up()
        assert terminal.process.wait(PATIENCE_S) != 0
        _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
        assert not alive
