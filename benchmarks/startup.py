"""How long until there is something to see, and until both sides can be chatted with.

`python benchmarks/startup.py` starts `quantchat demo` in a pseudo-terminal, on checkpoints that
are made already (it makes them first where they are not), and writes what it measured to
`benchmarks/results/startup.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from datetime import datetime
from pathlib import Path

import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from fakes.terminal import Terminal  # noqa: E402 - the tests' pseudo-terminal

FIRST_FRAME = "GPTQ 4-bit"
READY = "● ready"
MAKING_S = 1800


def one_start() -> dict[str, float]:
    """Start, wait, quit; seconds from the start of the process, and the screen's memory."""
    began = time.perf_counter()
    terminal = Terminal([sys.executable, "-m", "quantchat", "demo"])
    try:
        terminal.wait_for_text(FIRST_FRAME, most_s=MAKING_S)
        frame = time.perf_counter() - began
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
        "first_frame_s": round(frame, 2),
        "first_side_ready_s": round(first, 2),
        "both_ready_s": round(both, 2),
        "screen_process_mb": round(resident / 1e6, 1),
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    one_start()  # makes what is missing, and fills the file cache
    runs = [one_start() for _ in range(repeats)]
    result = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": f"python benchmarks/startup.py --repeats {repeats}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "median": {name: statistics.median(run[name] for run in runs) for name in runs[0]},
        "runs": runs,
    }
    target = HERE / "results" / "startup.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["median"], indent=2))


if __name__ == "__main__":
    main()
