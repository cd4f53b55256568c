"""Simulate how often the interval of a ratio contains the true ratio, and how wide it is.

`python benchmarks/intervals.py` simulates comparisons of two sides on a machine that is quiet, that
has good and bad rounds, or that other programs use too. It computes each interval with and without
moving outliers, and writes coverage, width and power to `benchmarks/results/intervals.json`.
Nothing is timed: the same seed gives the same figures. `--table` prints the table of
docs/explanation/statistics.md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from quantchat.statistics.intervals import Pair, Ratio, Row, interval_of, ratio_of

RESULTS = Path(__file__).parent / "results" / "intervals.json"
SEED = 20261130
DESIGNS = ((5, 5), (5, 3), (2, 2), (20, 1), (1, 5))
"""Numbers of prompts and rounds."""
REGRESSIONS = (1.05, 1.10)

Noise = Callable[[np.random.Generator, int], Any]
"""Returns the logarithm of the slowdown of each of `count` answers, in the order of the answers."""


def quiet(generator: np.random.Generator, count: int) -> Any:
    """Return normal noise of 3 %."""
    return generator.normal(0, 0.03, count)


def pauses(generator: np.random.Generator, count: int) -> Any:
    """Return noise with pauses: one answer in ten, by its own duration on average."""
    hit = generator.random(count) < 0.1
    return np.log1p(hit * generator.exponential(1.0, count)) + generator.normal(0, 0.02, count)


def bursts(generator: np.random.Generator, count: int) -> Any:
    """Return noise with bursts: another program makes five answers on average 1.8 times slower."""
    slow, found = generator.random() < 0.3, []
    for _ in range(count):
        found.append(math.log(1.8) * slow)
        slow = generator.random() > 0.2 if slow else generator.random() < 0.08
    return np.array(found) + generator.normal(0, 0.03, count)


def drift(generator: np.random.Generator, count: int) -> Any:
    """Return noise with a speed that drifts by 15 % (autoregressive, with coefficient 0.9)."""
    found = [generator.normal(0, 0.15)]
    for _ in range(count - 1):
        found.append(0.9 * found[-1] + generator.normal(0, 0.15 * math.sqrt(1 - 0.81)))
    return np.array(found) + generator.normal(0, 0.02, count)


MACHINES: dict[str, Noise] = {"quiet": quiet, "pauses": pauses, "bursts": bursts, "drift": drift}


def measured(
    generator: np.random.Generator, prompts: int, rounds: int, noise: Noise, of_prompt: float = 0.0
) -> list[Pair]:
    """Return pairs of two equal sides that begin in turn; `of_prompt` is how B varies by prompt."""
    slow = iter(noise(generator, 2 * prompts * rounds))
    own = generator.normal(0, of_prompt, prompts) if of_prompt else np.zeros(prompts)
    pairs = []
    for round_ in range(rounds):
        for prompt in range(prompts):
            first, second = math.exp(next(slow)), math.exp(next(slow))
            a, b = (first, second) if (prompt + round_) % 2 else (second, first)
            pairs.append(Pair(prompt, round_, a, b * math.exp(own[prompt])))
    return pairs


def plain_ratio(pairs: list[Pair]) -> Ratio:
    """Return the geometric mean with its interval, outliers included."""
    found = interval_of(
        lambda means: means[0],
        [Row(pair.prompt, pair.round, (math.log(pair.b / pair.a),)) for pair in pairs],
    )
    low, high = (None if x is None else math.exp(x) for x in (found.low, found.high))
    return Ratio(math.exp(found.value), low, high, len(pairs), 0, found.clusters, "")


def cell(prompts: int, rounds: int, noise: Noise, of_prompt: float, count: int) -> dict[str, Any]:
    """Return coverage, width and power of both estimates over the same `count` comparisons."""
    generator = np.random.default_rng(SEED)
    data = [measured(generator, prompts, rounds, noise, of_prompt) for _ in range(count)]
    result: dict[str, Any] = {}
    for name, estimate in (("plain", plain_ratio), ("robust", ratio_of)):
        found = [one for pairs in data if (one := estimate(pairs)) is not None]
        bounds = [
            (one.low, one.high) for one in found if one.low is not None and one.high is not None
        ]
        result[name] = {
            "coverage": sum(low <= 1 <= high for low, high in bounds) / count,
            "half_width": statistics.median(math.sqrt(high / low) - 1 for low, high in bounds),
            # A factor on B moves the whole interval: this simulates comparisons with a slower B.
            **{f"shown at {f}": sum(low * f > 1 for low, _ in bounds) / count for f in REGRESSIONS},
        }
    return result


def run(count: int) -> dict[str, Any]:
    """Simulate every design on every machine, and return the result."""
    cells = []
    for prompts, rounds in DESIGNS:
        for machine, noise in MACHINES.items():
            for of_prompt in (0.0, 0.04) if machine == "quiet" and prompts > 1 else (0.0,):
                name = f"{machine}, prompts differ" if of_prompt else machine
                print(f"{prompts} x {rounds}, {name}", flush=True)
                found = cell(prompts, rounds, noise, of_prompt, count)
                cells.append({"prompts": prompts, "rounds": rounds, "machine": name, **found})
    return {
        "what": "simulated comparisons of two equal sides; nothing was timed",
        "command": f"python benchmarks/intervals.py --count {count}",
        "date": datetime.now().astimezone().date().isoformat(),
        "count": count,
        "seed": SEED,
        "cells": cells,
    }


def table(result: dict[str, Any]) -> str:
    """Return the table of docs/explanation/statistics.md."""
    lines = [
        "| prompts × rounds | machine | coverage, plain → robust | half-width, plain → robust"
        " | slowdown of 5 % shown, plain → robust |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in result["cells"]:
        plain, robust = one["plain"], one["robust"]
        lines.append(
            f"| {one['prompts']} × {one['rounds']} | {one['machine']}"
            f" | {plain['coverage']:.1%} → {robust['coverage']:.1%}"
            f" | {plain['half_width']:.1%} → {robust['half_width']:.1%}"
            f" | {plain['shown at 1.05']:.0%} → {robust['shown at 1.05']:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Simulate, or print the table of the saved result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="comparisons in each cell")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        RESULTS.write_text(json.dumps(run(options.count), indent=2) + "\n")
    print(table(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
