"""Commands in a real terminal print hostile names, files, answers and errors as plain text."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from fakes.control_checker import Listener
from fakes.hostile_text import named

TESTS = Path(__file__).parents[1]
PROGRAM = TESTS / "fakes" / "run_commands.py"

OURS = {
    *("\r\n", "\x1b[m", "\x1b[31m"),  # lines; colours, the red of what failed among them
    *("\r", "\x1b[2K", "\x1b[1A", "\x1b[?25l", "\x1b[?25h"),  # the progress of `run`, drawn anew
}

SAID = {
    "snapshots": (0, 0, 0, 0, 2),
    "compare": (0, 2, 2, 0),
    "report": (0,),
    "profiles": (0, 1, 0),
    "run": (1,),
    "doctor": (1, 1),
    "cache": (0, 1, 2),
    "plan": (2,),
    "score": (2,),
    "eval": (2, 2),
    "vote": (2,),
    "rerun": (2,),
    "quantize": (2,),
    "unknown": (2,),
}
"""Exit statuses: of what was shown, of answers that failed, of a word that means nothing."""

LEAST = 250
"""Payloads that all commands together print as text; tables cut many a name in two."""


def test_what_commands_print_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    homes = {
        f"QUANTCHAT_{name}": str(tmp_path / name.lower())
        for name in ("CONFIG", "CACHE", "SNAPSHOTS", "LOGS")
    }
    terminal = Listener(
        [sys.executable, str(PROGRAM), str(tmp_path)],
        allowed=OURS,
        columns=400,
        rows=60,
        env={"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), **homes},
    )
    try:
        assert terminal.wait_for_exit() == 0, terminal.text
        while terminal.read():  # what is left; each byte is judged as it is read
            pass
    finally:
        terminal.close()
    assert not terminal.pending
    said: dict[str, tuple[int, ...]] = {}
    printed = re.findall(r"(.*?)=== (\w+): (\d+)\n", terminal.drawn, re.S)
    for text, command, status in printed:
        said[command] = (*said.get(command, ()), int(status))
        assert named(text), f"{command} showed no payload: {text}"
    assert said == SAID
    assert len(terminal.seen) >= LEAST
