"""Runs the screen with both variants in a pseudo-terminal, and saves its text at each step.

    python benchmarks/gpu/look_at_screen.py PROFILE OUT.txt [SECONDS]

The texts are appended to OUT.txt. SECONDS is the time limit of all steps together (100). The
environment variable SNAPSHOTS names the folder for the saved conversation.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from fakes.terminal import Terminal

READY = "● ready"
BOTH = 2


def main() -> None:
    """Load both variants, send a prompt, save the conversation and quit."""
    profile, out = sys.argv[1], Path(sys.argv[2])
    began = time.monotonic()
    most = float(sys.argv[3]) if len(sys.argv) > 3 else 100.0
    saved = os.environ.get("SNAPSHOTS", "/tmp/quantchat-snapshots")
    command = [sys.executable, "-m", "quantchat", profile, "--snapshots", saved]
    terminal = Terminal(command, columns=150, rows=50)

    def left() -> float:
        return max(1.0, most - (time.monotonic() - began))

    def keep(what: str) -> None:
        at = f"{what}: {time.monotonic() - began:.1f} s"
        with out.open("a", encoding="utf-8") as file:
            file.write(f"\n===== {at}\n{terminal.text}\n")
        print(at, flush=True)

    def both_ready() -> bool:
        return terminal.text.count(READY) == BOTH

    try:
        terminal.wait_for_text("quantchat", most_s=left())
        keep("first frame")
        terminal.wait_for(both_ready, "both sides ready", left())
        keep("both ready")
        terminal.type("Explain how a bicycle stays upright.\r")
        terminal.wait_for(lambda: not both_ready(), "an answer", left())
        keep("answering")
        terminal.wait_for(both_ready, "both answered", left())
        keep("answered")
        terminal.type("\x13")
        terminal.wait_for_text("Snapshot saved", most_s=left())
        keep("saved")
        terminal.type("\x11\x11")
        print("exit status", terminal.wait_for_exit(left()))
    except BaseException as error:
        keep(f"FAILED {type(error).__name__}")
        raise
    finally:
        terminal.close()


if __name__ == "__main__":
    main()
