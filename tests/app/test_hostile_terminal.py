"""A real terminal receives no control sequence from what models output."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fakes.control_checker import SYNCHRONIZED, Listener
from fakes.hostile_markdown import PLACES
from fakes.hostile_text import COPIES, COUNT, CUT, name, payload
from quantchat.snapshot import store
from quantchat.text import neutralise

TESTS = Path(__file__).parent.parent
PROGRAM = TESTS / "fakes" / "run_hostile.py"

TALKING = {
    "\x1b[m", "\x1b[H", "\x1b[C", "\x1b7", "\x1b8", "\r\n",
    "\x1b[?2026h", "\x1b[?2026l", "\x1b]22;default\x07",
}  # fmt: skip
"""Colours, places (DECSC, DECRC and CUF where terminals measure a text differently), where a frame
begins and ends, and the pointer's shape: once it is there, the screen needs no more."""

STARTING = TALKING | {
    SYNCHRONIZED, "\x1b[?1049h", "\x1b[?25l", "\x1b[?1000h", "\x1b[?1003h", "\x1b[?1015h",
    "\x1b[?1006h", "\x1b[?1004h", "\x1b[?2004h", "\x1b[?2048$p", "\x1b[>25u", "\x1b[?7l",
}  # fmt: skip
"""The alternate screen, no cursor, mouse, focus, paste, size and keyboard."""

ENDING = TALKING | {
    "\x1b[?1049l", "\x1b[?25h", "\x1b[?1000l", "\x1b[?1003l", "\x1b[?1015l", "\x1b[?1006l",
    "\x1b[?1004l", "\x1b[?2004l", "\x1b[<u", "\x1b[?7h",
}  # fmt: skip
"""All of it taken back."""

BATCH = 277
"""Payloads of one answer: a column of `ROWS` rows shows them all at once."""
ROWS = 200

SAVED = "snapshots/*-a-comparison.json"
"""What was saved by a key; what a new chat keeps by itself ends in `.recovered.json`."""

ENTER, NEW_CHAT, LOG, SAVE, QUIT = "\r", "\x0e", "\x1bl", "\x13", "\x11\x11"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(
        [sys.executable, str(PROGRAM), str(tmp_path)],
        allowed=STARTING,
        columns=400,
        rows=ROWS,
        env={
            "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
            "QUANTCHAT_LOGS": str(tmp_path / "logs"),
        },
    )
    yield listener
    listener.close()


def test_ten_thousand_payloads_are_text(terminal: Listener, tmp_path: Path) -> None:
    assert COUNT >= 10_000
    terminal.wait_for(lambda: terminal.drawn.count("● ready") >= 2, "both variants")
    terminal.allowed = TALKING
    copy = COUNT // COPIES
    for first in range(0, copy, BATCH):
        numbers = range(first, min(first + BATCH, copy))
        wanted = {name(n + side * copy) for n in numbers for side in range(COPIES)}
        terminal.forget()
        terminal.type(f"say {numbers.start} {numbers.stop}{ENTER}")
        terminal.wait_for_payloads(wanted, partial(shown_as_they_are, terminal, numbers))
        terminal.type(NEW_CHAT)

    terminal.forget()
    terminal.type(f"fail{ENTER}")
    failed = "Internal error in quantchat"
    terminal.wait_for(lambda: terminal.drawn.count(failed) >= 2, "both failures")
    terminal.type(NEW_CHAT)

    pasted = "".join(payload(number) for number in range(0, COUNT, 53)).replace(CUT, "")
    # A terminal sends no half of a surrogate pair.
    pasted = re.sub(r"[\ud800-\udfff]", "", pasted)
    terminal.forget()
    terminal.type(f"\x1b[200~say 0 50 {pasted} its end\x1b[201~")
    terminal.wait_for(lambda: "its end" in terminal.drawn, "what was pasted")
    terminal.forget()  # the ends of earlier answers, which may have been drawn late
    terminal.type(ENTER)
    terminal.wait_for(lambda: over(terminal), "the answers to it")
    terminal.type(SAVE)
    terminal.wait_for(lambda: list(tmp_path.glob(SAVED)), "a snapshot")
    terminal.forget()
    terminal.type(LOG)
    drawn = "↑↓: scroll · Esc: close"
    terminal.wait_for(lambda: drawn in terminal.drawn and len(terminal.seen) > 50, "the log")
    terminal.allowed = ENDING
    terminal.type(QUIT)
    assert terminal.wait_for_exit() == 0
    assert not terminal.pending
    kept_raw(tmp_path)


def over(terminal: Listener) -> bool:
    """Whether both answers are over. Of a long one, more may still be drawn."""
    return len(re.findall(r" · together(?: \(contended\))? · TTFT", terminal.drawn)) >= 2


def shown_as_they_are(terminal: Listener, numbers: range) -> bool:
    """Whether the answers are over, and code shows each character of a payload, or its mark."""
    return over(terminal) and all(
        neutralise(payload(number).replace(CUT, "")) in terminal.drawn
        for number in numbers
        if PLACES[number % len(PLACES)] == "fence"
    )


def kept_raw(folder: Path) -> None:
    """The snapshot holds what the models said, and its file nothing but ASCII."""
    (file,) = folder.glob(SAVED)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert all(0x20 <= byte < 0x7F for byte in file.read_bytes().rstrip(b"\n"))
    answers = store.load(file).turns[-1].answers
    assert len(answers) == COPIES
    for side, answer in enumerate(answers):
        for number in range(50):
            assert payload(number + side * (COUNT // COPIES)).replace(CUT, "") in answer.text
