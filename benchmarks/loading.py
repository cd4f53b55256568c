"""Measure how long the demo's variants take to load, by stage, compared with another revision.

`python benchmarks/loading.py --against TREE` loads each variant with this revision and with the one
checked out in the folder TREE, alternately, each time in a new worker on existing checkpoints. It
writes `benchmarks/results/loading.json`; `--table` prints its medians as Markdown. A ratio compares
the two loads of one round. Run the benchmark on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from driving import circumstances
from session import keep, kept

HERE = Path(__file__).resolve().parent
STAGES = ("import_s", "weights_s", "warmup_s")
_PROGRAM = """
import asyncio, json, sys, time
sys.path.insert(0, sys.argv[1])
from driving import demo_loads, loaded
async def main():
    loads = await demo_loads()
    if len(sys.argv) < 3:
        return list(loads)
    began = time.perf_counter()
    worker, ready = await loaded(sys.argv[2], loads[sys.argv[2]])
    seconds = {"total_s": time.perf_counter() - began}
    await worker.close()
    seconds |= {name: getattr(ready, name) for name in ("import_s", "weights_s", "warmup_s")}
    return {name: round(value, 2) for name, value in seconds.items()}
print(json.dumps(asyncio.run(main())))
"""


def ask(tree: Path, *arguments: str) -> Any:
    """Run `_PROGRAM` with the sources of `tree`; return what it prints.

    With a variant's label it prints the seconds by stage, without one the labels of the variants.
    """
    benchmarks = tree / "benchmarks"
    # As on a user's machine, Python keeps bytecode, also where a container's image turns that off.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(benchmarks), *arguments],
        env={**environment, "PYTHONPATH": str(tree / "tui")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])


def table(result: dict[str, Any]) -> list[str]:
    """Return medians in s as Markdown: of this revision, and in brackets of the other revision."""
    lines = [
        "| variant | import, s | weights, s | warm-up, s | total, s"
        " | total ÷ that of the other revision |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for label, rounds in result["variants"].items():
        this, other = ([one[which] for one in rounds] for which in ("this", "other"))
        cells = [
            f"{statistics.median(one[name] for one in this):.1f}"
            f" ({statistics.median(one[name] for one in other):.1f})"
            for name in (*STAGES, "total_s")
        ]
        ratio = statistics.median(
            a["total_s"] / b["total_s"] for a, b in zip(this, other, strict=True)
        )
        lines.append(f"| {label} | {' | '.join(cells)} | {ratio:.2f} |")
    return lines


def main() -> None:
    """Measure and write the result, or print the table of the saved result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="folder of another revision's work tree")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="print the saved result")
    asked = parser.parse_args()
    if asked.table:
        print("\n".join(table(kept("loading"))))
        return
    if asked.against is None:
        parser.error("name the other revision's work tree: --against TREE")
    result = circumstances(f"loading.py --against TREE --rounds {asked.rounds}")
    trees = {"this": HERE.parent, "other": asked.against.resolve()}
    result["revisions"] = {
        name: subprocess.run(
            ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for name, tree in trees.items()
    }
    labels = ask(trees["this"])
    ask(trees["other"])  # makes checkpoints that only the other revision needs
    variants: dict[str, list[dict[str, Any]]] = {label: [] for label in labels}
    for number in range(asked.rounds + 1):  # round 0 fills the file cache
        for label in labels:
            names = list(trees) if number % 2 else list(reversed(trees))
            one = {name: ask(trees[name], label) for name in names}
            if number:
                variants[label].append(one)
                print(label, one, flush=True)
    keep("loading", {**result, "variants": variants})
    print("\n".join(table(kept("loading"))))


if __name__ == "__main__":
    main()
