"""Copying from the real screen inside real tmux and GNU screen reaches the outer terminal."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fakes.terminal import Terminal

TESTS = Path(__file__).parent.parent
PROGRAM = TESTS / "fakes" / "run_scripted.py"
ENTER, F6 = "\r", "\x1b[17~"
SAID = "The capital of France is **Paris**."


def needs(program: str) -> pytest.MarkDecorator:
    reason = f"no {program} is installed here"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


@contextlib.contextmanager
def within(command: Sequence[str], folder: Path) -> Iterator[Terminal]:
    """The screen, started by the multiplexer's `command`, once it has answered."""
    terminal = Terminal(
        [*command, sys.executable, str(PROGRAM), str(folder)],
        columns=200,
        rows=50,
        env={
            "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
            "QUANTCHAT_LOGS": str(folder / "logs"),
        },
    )
    try:
        terminal.wait_for(lambda: terminal.text.count("● ready") == 2, "both sides ready")
        terminal.type(f"Where is Paris?{ENTER}")
        terminal.wait_for(lambda: terminal.text.count("TTFT 150 ms") == 2, "both answers")
        yield terminal
    finally:
        terminal.close()


def clipboard(terminal: Terminal) -> list[str]:
    """What the terminal was told to put into its clipboard."""
    told = re.findall(rb"\x1b\]52;c?;([A-Za-z0-9+/=]*)(?:\x07|\x1b\\)", bytes(terminal.received))
    return [base64.b64decode(text).decode() for text in told]


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)


@needs("tmux")
def test_tmux_has_it_in_its_buffer_and_hands_it_on(tmp_path: Path) -> None:
    tmux = ["tmux", "-L", f"quantchat-{uuid.uuid4().hex[:8]}", "-f", "/dev/null"]
    try:
        with within([*tmux, "set", "-s", "set-clipboard", "on", ";", "new"], tmp_path) as terminal:
            terminal.type(F6)
            terminal.wait_for_text("copied to tmux's paste buffer")
            buffer = subprocess.check_output([*tmux, "show-buffer"], encoding="utf-8")
            assert buffer == SAID
            terminal.wait_for(lambda: clipboard(terminal) == [SAID], "the clipboard's OSC 52")
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, stderr=subprocess.DEVNULL)


@needs("screen")
def test_gnu_screen_hands_it_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = tmp_path / "sockets"
    sockets.mkdir(mode=0o700)
    monkeypatch.setenv("SCREENDIR", str(sockets))
    screen = ["screen", "-S", "quantchat"]
    try:
        with within([*screen, "-c", "/dev/null", "-U"], tmp_path) as terminal:
            terminal.type(F6)
            terminal.wait_for(lambda: clipboard(terminal) == [SAID], "the clipboard's OSC 52")
            terminal.wait_for_text("sent through GNU screen to the terminal's clipboard")
    finally:
        subprocess.run([*screen, "-X", "quit"], check=False, stdout=subprocess.DEVNULL)
