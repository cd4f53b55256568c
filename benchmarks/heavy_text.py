"""Measure how long adversarial text blocks the screen, and how the cost grows with its length.

`python benchmarks/heavy_text.py` does with each text of tests/fakes/heavy_text.py what a column
does with an answer: the text arrives in one piece, the answer ends, and it is drawn again at
another width. It measures the longest time that one call blocks the event loop, and the CPU time
per character, at two lengths of the text, and writes both to benchmarks/results/heavy_text.json.
Work that a column does in a thread (`IncrementalMarkdown.jobs`) counts as CPU time, but not as
blocking. `--table` prints the results.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from driving import circumstances

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fakes.heavy_text import SHAPES  # noqa: E402
from quantchat.app import gc_tuning  # noqa: E402
from quantchat.app.incremental_markdown import IncrementalMarkdown  # noqa: E402
from quantchat.app.textual_workarounds import draw_each_script  # noqa: E402
from quantchat.system.host import cpu_name  # noqa: E402

RESULT = Path(__file__).parent / "results" / "heavy_text.json"
SIZES = (15_000, 60_000)
"""Lengths of the texts in characters."""
LONG_S = 60.0
"""CPU time, in s, after which the benchmark ends with an error."""


def main() -> None:
    """Measure, save and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="print the saved result")
    parser.add_argument("--only", nargs="*", help="texts to measure; then nothing is saved")
    given = parser.parse_args()
    if not given.table:
        gc_tuning.start()  # as quantchat itself does
        draw_each_script()
        _drawn("warm *up* http://a.example\n\n```py\nx\n```\n\n|a|\n|-|\n|हि|" * 20)
        shapes = {name: _measured(SHAPES[name]) for name in given.only or SHAPES}
        kept = {
            **circumstances("heavy_text.py"),
            "cpu": cpu_name(),
            "sizes": SIZES,
            "shapes": shapes,
        }
        if given.only:
            print(_table(kept))
            return
        RESULT.write_text(json.dumps(kept, indent=1) + "\n")
    print(_table(json.loads(RESULT.read_text())))


def _measured(said: Callable[[int], str]) -> list[dict[str, float]]:
    found = []
    for size in SIZES:
        text = said(size)
        held, cost = min((_drawn(text) for _ in range(2)), key=lambda one: one[0])
        found.append({"held_ms": round(held * 1e3, 1), "us": round(cost / len(text) * 1e6, 1)})
    return found


def _drawn(text: str) -> tuple[float, float]:
    """Show `text` as a column does; return the longest time of a blocking call and the total time.

    Both are CPU seconds of this thread.
    """
    growing, held, cost = IncrementalMarkdown(), 0.0, 0.0
    gc_tuning.collect_while_idle()  # garbage of other texts must not count for this one

    def timed(call: Callable[..., Any], *given: Any, held_by: bool = True) -> Any:
        nonlocal held, cost
        began = time.thread_time()
        result = call(*given)
        took = time.thread_time() - began
        cost += took
        held = max(held, took) if held_by else held
        if cost > LONG_S:
            raise SystemExit(f"given up after {cost:.0f} s: {text[:40]!r}")
        return result

    def finish() -> None:
        while growing.busy:
            timed(growing.advance)
            if growing.jobs:
                job = growing.jobs.popleft()
                timed(job.adopt, timed(job.compute, held_by=False))

    growing.fit(76)
    timed(growing.feed, text)
    finish()
    timed(growing.complete_with, text)
    finish()
    timed(growing.fit, 50)
    finish()
    return held, cost


def _table(kept: dict[str, Any]) -> str:
    small, large = kept["sizes"]
    rows = [
        f"{kept['date'][:10]}, {kept['cpu']}, `{kept['command']}`",
        "",
        f"| text | longest step, {small:,} characters | longest step, {large:,} characters"
        f" | µs per character, {small:,} characters | µs per character, {large:,} characters |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, (first, second) in kept["shapes"].items():
        rows.append(
            f"| {name} | {first['held_ms']:.0f} ms | {second['held_ms']:.0f} ms |"
            f" {first['us']:.0f} | {second['us']:.0f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
