"""Measure the time until the first frame, and until both sides are ready to chat.

`python benchmarks/startup.py` starts `quantchat demo` in a pseudo-terminal on existing checkpoints
(it builds missing ones first), and writes `benchmarks/results/startup.json`. Starts until the first
frame alternate with those of a minimal Textual app, which is the lower limit for a program that
uses Textual. `--table` prints the documentation's table.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from datetime import datetime
from typing import Any

import psutil
from session import HERE, TESTS, Session, keep, kept

sys.path.insert(0, str(TESTS))

from fakes.terminal import Terminal

READY = "● ready"
MAKING_S = 1800
QUANTCHAT = (sys.executable, "-m", "quantchat")
BARE = "a bare Textual app"
FIRST = {
    BARE: ((sys.executable, str(HERE / "bare_app.py")), "the first frame"),
    "`quantchat demo`": ((*QUANTCHAT, "demo"), "GPTQ 4-bit"),
    "`quantchat`": (QUANTCHAT, "Profiles"),
}
"""For each program, the command that starts it, and a text in its first frame."""


def first_frame(command: tuple[str, ...], text: str) -> float:
    """Return the seconds from the start of the process to the frame with `text`."""
    began = time.perf_counter()
    session = Session(command)
    try:
        return round(session.wait_for(text) - began, 3)
    finally:
        session.close()


def whole_start() -> dict[str, float]:
    """Start the demo, wait until both sides are ready, quit; return both times and the memory."""
    began = time.perf_counter()
    terminal = Terminal([*QUANTCHAT, "demo"])
    try:
        terminal.wait_for(lambda: READY in terminal.text, "one side ready", MAKING_S)
        first = time.perf_counter() - began
        terminal.wait_for(lambda: terminal.text.count(READY) == 2, "both ready", MAKING_S)
        both = time.perf_counter() - began
        resident = psutil.Process(terminal.process.pid).memory_info().rss
        terminal.type("\x11")
        terminal.wait_for_exit()
    finally:
        terminal.close()
    return {
        "first_side_ready_s": round(first, 2),
        "both_ready_s": round(both, 2),
        "screen_process_mb": round(resident / 1e6, 1),
    }


def table(result: dict[str, Any]) -> list[str]:
    """Return the times of first frames as Markdown."""
    lines = [
        "| first frame of | median, s | fastest, slowest, s | ÷ bare app |",
        "| --- | --- | --- | --- |",
    ]
    bare = result["first_frame_s"][BARE]
    for name, times in result["first_frame_s"].items():
        ratio = statistics.median(s / floor for s, floor in zip(times, bare, strict=True))
        median, least, most = statistics.median(times), min(times), max(times)
        lines.append(f"| {name} | {median:.2f} | {least:.2f}, {most:.2f} | {ratio:.1f} |")
    return lines


def main() -> None:
    """Measure and write the result, or print the table of the saved result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=21, help="first frames of each program")
    parser.add_argument("--repeats", type=int, default=3, help="starts until both sides are ready")
    parser.add_argument("--table", action="store_true", help="print the saved result")
    asked = parser.parse_args()
    if asked.table:
        print("\n".join(table(kept("startup"))))
        return
    load = os.getloadavg()[0]
    whole_start()  # builds missing checkpoints, and fills the file cache
    for start in FIRST.values():
        first_frame(*start)
    frames: dict[str, list[float]] = {name: [] for name in FIRST}
    for _ in range(asked.frames):
        for name, start in FIRST.items():
            frames[name].append(first_frame(*start))
    runs = [whole_start() for _ in range(asked.repeats)]
    result = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": f"python benchmarks/startup.py --frames {asked.frames} "
        f"--repeats {asked.repeats}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_before": load,
        "python": platform.python_version(),
        "first_frame_s": frames,
        "median": {name: statistics.median(run[name] for run in runs) for name in runs[0]},
        "runs": runs,
    }
    keep("startup", result)
    print("\n".join(table(result)))


if __name__ == "__main__":
    main()
