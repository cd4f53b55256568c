"""Fast answers of every kind through real processes and pipes to a real terminal."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from fakes.synthetic_text import KINDS
from fakes.terminal import Terminal

TESTS = Path(__file__).parent.parent
PROGRAM = TESTS / "fakes" / "run_synthetic.py"


def test_nothing_is_lost_or_out_of_order(own_folders: None, tmp_path: Path) -> None:
    path = os.pathsep.join([str(TESTS), *sys.path])
    terminal = Terminal([sys.executable, str(PROGRAM), str(tmp_path)], env={"PYTHONPATH": path})
    try:
        terminal.wait_for(lambda: terminal.text.count("● ready") == 2, "both ready")
        for kind in KINDS:
            terminal.type(f"{kind} 3000 2000\r")
            terminal.wait_for(lambda: terminal.text.count("2000 tokens ·") == 2, f"all of {kind}")
            terminal.type("\x0e")  # a new chat: the next summary is the next answer's
            terminal.wait_for(lambda: "2000 tokens ·" not in terminal.text, "a new chat")
        terminal.type("\x11\x11")
        assert terminal.wait_for_exit() == 0
    finally:
        terminal.close()
    answers = json.loads((tmp_path / "report.json").read_text())["answers"]
    assert len(answers) == 2 * len(KINDS)
    for answer in answers:
        assert answer["whole"] and answer["in_order"] and answer["tokens"] == 2000, answer
