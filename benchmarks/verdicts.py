"""Simulate the verdicts of gates, and measurements that end when their interval is narrow enough.

`python benchmarks/verdicts.py` simulates comparisons of two sides whose true ratio is known, on the
machines of `benchmarks/intervals.py`, and writes `benchmarks/results/verdicts.json`:

- *gates*: how often `--fail-unless 'b.tpot_ms < 1.025 * a.tpot_ms'` passes, fails and stays
  undecided if B is in truth as fast as A, 5 % slower or 10 % slower;
- *until*: how often the interval of `quantchat run --until-width` contains the true ratio, and
  after how many rounds the measurement ends.

Nothing is timed: the same seed gives the same figures. `--table` prints the tables of
docs/explanation/statistics.md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from intervals import CASES, Case, measured

from quantchat.measuring.until_width import FIRST_CHECK, half_width, narrow_enough
from quantchat.snapshot.verdicts import JudgedQuantity
from quantchat.statistics.intervals import ratio_of

RESULTS = Path(__file__).parent / "results" / "verdicts.json"
SEED = 20261130
PROMPTS, ROUNDS = 5, 5
SLOWER = (1.0, 1.05, 1.10)
MARGIN = 1.025
"""The largest TPOT that the gate allows, as a multiple."""
WIDTHS = (0.05, 0.10)
MOST_ROUNDS = 20
MACHINES = ("quiet", "pauses", "bursts", "drift")


def gates(case: Case, count: int) -> dict[str, Any]:
    """Return how often the gate gives each verdict, as a share, for each true slowdown of B."""
    generator = np.random.default_rng(SEED)
    found: dict[float, Counter[str]] = {slower: Counter() for slower in SLOWER}
    same = 0
    for _ in range(count):
        ratio = ratio_of(measured(generator, PROMPTS, ROUNDS, case))
        assert ratio is not None and ratio.low is not None and ratio.high is not None
        same += not ratio.shown
        for slower, counter in found.items():
            # A slower B moves the whole interval by its factor.
            low, high = ratio.low * slower, ratio.high * slower
            counter[JudgedQuantity("", ratio.value * slower, low, high, MARGIN, "<").outcome] += 1
    return {
        "no difference shown between equals": same / count,
        **{
            f"{slower:g}": {name: counter[name] / count for name in _OUTCOMES}
            for slower, counter in found.items()
        },
    }


_OUTCOMES = {"shown": "passes", "undecided": "undecided", "shown otherwise": "fails"}


def until(case: Case, width: float, count: int) -> dict[str, Any]:
    """Simulate `quantchat run --until-width`; return coverage, rounds and half-width."""
    generator = np.random.default_rng(SEED)
    covered, rounds, halves = 0, [], []
    for _ in range(count):
        pairs = measured(generator, PROMPTS, MOST_ROUNDS, case)
        by_round = [[p for p in pairs if p.round == number] for number in range(MOST_ROUNDS)]
        taken, before = [pair for part in by_round[:FIRST_CHECK] for pair in part], math.inf
        ended = FIRST_CHECK
        while True:
            half = half_width(taken)
            if narrow_enough(half, before, width) or ended == MOST_ROUNDS:
                break
            before = math.inf if half is None else half
            taken = [*taken, *by_round[ended]]
            ended += 1
        ratio = ratio_of(taken)
        assert ratio is not None and ratio.low is not None and ratio.high is not None
        covered += ratio.low <= 1 <= ratio.high
        rounds.append(ended)
        halves.append(math.sqrt(ratio.high / ratio.low) - 1)
    return {
        "coverage": covered / count,
        "rounds": statistics.median(rounds),
        "half_width": statistics.median(halves),
        "reached": sum(half <= width for half in halves) / count,
    }


def run(count: int) -> dict[str, Any]:
    """Simulate every machine, and return the result."""
    cells = []
    for machine in MACHINES:
        print(machine, flush=True)
        cells.append({
            "machine": machine,
            "gates": gates(CASES[machine], count),
            "until": {f"{width:g}": until(CASES[machine], width, count) for width in WIDTHS},
        })  # fmt: skip
    return {
        "what": "simulated comparisons whose true ratio is known; nothing was timed",
        "command": f"python benchmarks/verdicts.py --count {count}",
        "date": datetime.now().astimezone().date().isoformat(),
        "count": count,
        "seed": SEED,
        "prompts": PROMPTS,
        "rounds": ROUNDS,
        "margin": MARGIN,
        "most_rounds": MOST_ROUNDS,
        "cells": cells,
    }


def tables(result: dict[str, Any]) -> str:
    """Return the tables of docs/explanation/statistics.md."""
    lines = [
        "| machine | equal sides: no difference shown | equal sides, gate: passes, undecided, fails"
        " | B 5 % slower: passes, undecided, fails | B 10 % slower: passes, undecided, fails |",
        "| --- | --- | --- | --- | --- |",
    ]
    for cell in result["cells"]:
        found = cell["gates"]
        shares = [
            ", ".join(f"{found[f'{slower:g}'][name]:.0%}" for name in _OUTCOMES)
            for slower in SLOWER
        ]
        same = found["no difference shown between equals"]
        lines.append(f"| {cell['machine']} | {same:.1%} | {' | '.join(shares)} |")
    lines += [
        "",
        "| machine | width requested | coverage | median rounds | median half-width"
        " | measurements that reached it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for cell in result["cells"]:
        for width, found in cell["until"].items():
            lines.append(
                f"| {cell['machine']} | ±{float(width):.0%} | {found['coverage']:.1%}"
                f" | {found['rounds']:g} | {found['half_width']:.1%} | {found['reached']:.0%} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Simulate, or print the tables of the saved result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="comparisons on each machine")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        RESULTS.write_text(json.dumps(run(options.count), indent=2) + "\n")
    print(tables(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
