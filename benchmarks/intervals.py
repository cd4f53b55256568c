"""Simulate how often the interval of a ratio contains the true ratio, and how wide it is.

`python benchmarks/intervals.py` simulates comparisons of two sides on a machine that is quiet,
whose speed drifts, or that other programs use too. It computes each interval by two estimates: a
plain mean, and the robust mean that quantchat uses, on which outliers have less effect. It writes
the following to `benchmarks/results/intervals.json`:

- coverage: the share of intervals that contain the true ratio;
- half-width: the median w of intervals that reach from ratio ÷ (1 + w) to ratio × (1 + w);
- power: the share of comparisons that show a slowdown of 5 % or 10 %.

Nothing is timed: the same seed gives the same figures. `--table` prints the tables of
docs/explanation/statistics.md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quantchat.statistics.intervals import Pair, Ratio, Row, interval_of, ratio_of

RESULTS = Path(__file__).parent / "results" / "intervals.json"
SEED = 20261130
DESIGNS = ((5, 5), (5, 10), (5, 3), (2, 2), (20, 1), (1, 5))
"""Numbers of prompts and rounds."""
REGRESSIONS = (1.05, 1.10)
"""Slowdowns of B for which the power is computed."""

Noise = Callable[[np.random.Generator, int], Any]
"""Returns the logarithm of the slowdown of each of `count` answers, in the order of the answers."""


def quiet(generator: np.random.Generator, count: int) -> Any:
    """Return normal noise of 3 %."""
    return generator.normal(0, 0.03, count)


def pauses(generator: np.random.Generator, count: int) -> Any:
    """Return noise with pauses: one answer in ten pauses, on average for its own duration."""
    hit = generator.random(count) < 0.1
    return np.log1p(hit * generator.exponential(1.0, count)) + generator.normal(0, 0.02, count)


def _bursts(
    generator: np.random.Generator, count: int, *, slowdown: float, ends: float, begins: float
) -> Any:
    """Return the logarithm of each answer's slowdown by bursts, in which all answers are slow.

    `slowdown` is the factor during a burst. `begins` and `ends` are the probabilities that a burst
    begins or ends after an answer.
    """
    slow, found = generator.random() < 0.3, []
    for _ in range(count):
        found.append(math.log(slowdown) * slow)
        slow = generator.random() > ends if slow else generator.random() < begins
    return np.array(found)


def bursts(generator: np.random.Generator, count: int) -> Any:
    """Return noise with bursts: another program slows down five answers (on average) by 1.8."""
    slow = _bursts(generator, count, slowdown=1.8, ends=0.2, begins=0.08)
    return slow + generator.normal(0, 0.03, count)


def long_bursts(generator: np.random.Generator, count: int) -> Any:
    """Return noise with long bursts: another program slows down ten answers (on average) by 2.5."""
    slow = _bursts(generator, count, slowdown=2.5, ends=0.1, begins=0.043)
    return slow + generator.normal(0, 0.05, count)


def drift(generator: np.random.Generator, count: int) -> Any:
    """Return noise with a speed that drifts by 15 % (autoregressive, with coefficient 0.9)."""
    found = [generator.normal(0, 0.15)]
    for _ in range(count - 1):
        found.append(0.9 * found[-1] + generator.normal(0, 0.15 * math.sqrt(1 - 0.81)))
    return np.array(found) + generator.normal(0, 0.02, count)


def heavy_tails(generator: np.random.Generator, count: int) -> Any:
    """Return noise of 3 % with many outliers: Student's t with two degrees of freedom."""
    return 0.03 * generator.standard_t(2, count)


class Case(NamedTuple):
    """The noise of a machine, and how much the true ratio B ÷ A varies."""

    noise: Noise
    of_prompt: float = 0.0
    """Standard deviation of the ratio's logarithm between prompts."""
    of_round: float = 0.0
    """Standard deviation of the ratio's logarithm between rounds."""


CASES = {
    "quiet": Case(quiet),
    "quiet, prompts differ": Case(quiet, of_prompt=0.04),
    "quiet, rounds differ": Case(quiet, of_round=0.04),
    "quiet, both differ": Case(quiet, of_prompt=0.04, of_round=0.04),
    "heavy tails": Case(heavy_tails),
    "pauses": Case(pauses),
    "bursts": Case(bursts),
    "long bursts": Case(long_bursts),
    "drift": Case(drift),
}


def measured(generator: np.random.Generator, prompts: int, rounds: int, case: Case) -> list[Pair]:
    """Return simulated pairs of two sides that are equally fast on average.

    The sides take turns in answering first.
    """
    slow = iter(case.noise(generator, 2 * prompts * rounds))
    by_prompt = (
        generator.normal(0, case.of_prompt, prompts) if case.of_prompt else np.zeros(prompts)
    )
    by_round = generator.normal(0, case.of_round, rounds) if case.of_round else np.zeros(rounds)
    pairs = []
    for round_ in range(rounds):
        for prompt in range(prompts):
            first, second = math.exp(next(slow)), math.exp(next(slow))
            a, b = (first, second) if (prompt + round_) % 2 else (second, first)
            pairs.append(
                Pair(prompt, round_, a, b * math.exp(by_prompt[prompt] + by_round[round_]))
            )
    return pairs


def plain_ratio(pairs: list[Pair]) -> Ratio:
    """Return the geometric mean of the ratios with its interval; outliers have full effect."""
    found = interval_of(
        lambda means: means[0],
        [Row(pair.prompt, pair.round, (math.log(pair.b / pair.a),)) for pair in pairs],
    )
    low, high = (None if x is None else math.exp(x) for x in (found.low, found.high))
    return Ratio(math.exp(found.value), low, high, len(pairs), 0, found.clusters, "")


def cell(prompts: int, rounds: int, case: Case, count: int) -> dict[str, Any]:
    """Return coverage, half-width and power of both estimates over the same `count` comparisons."""
    generator = np.random.default_rng(SEED)
    data = [measured(generator, prompts, rounds, case) for _ in range(count)]
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
        for name, case in CASES.items():
            if (case.of_prompt and prompts == 1) or (case.of_round and rounds == 1):
                continue  # no method can see a difference that was not sampled
            print(f"{prompts} x {rounds}, {name}", flush=True)
            found = cell(prompts, rounds, case, count)
            cells.append({"prompts": prompts, "rounds": rounds, "machine": name, **found})
    return {
        "what": "simulated comparisons of two equal sides; nothing was timed",
        "command": f"python benchmarks/intervals.py --count {count}",
        "date": datetime.now().astimezone().date().isoformat(),
        "count": count,
        "seed": SEED,
        "cells": cells,
    }


def coverage_table(result: dict[str, Any]) -> str:
    """Return the coverage of the robust mean: a line for each machine, a column for each design.

    The last line is the mean of each column, and its last cell the mean of all cells.
    """
    by_place = {
        (one["machine"], one["prompts"], one["rounds"]): one["robust"]["coverage"]
        for one in result["cells"]
    }
    titles = " | ".join(f"{prompts} × {rounds}" for prompts, rounds in DESIGNS)
    lines = [f"| machine | {titles} | mean |", "| --- " * (len(DESIGNS) + 2) + "|"]
    for name in CASES:
        row = [by_place.get((name, *design)) for design in DESIGNS]
        lines.append(_line(name, row, [x for x in row if x is not None]))
    columns = [[v for key, v in by_place.items() if key[1:] == design] for design in DESIGNS]
    return "\n".join([*lines, _line("mean", map(statistics.mean, columns), by_place.values())])


def _line(name: str, row: Iterable[float | None], averaged: Iterable[float]) -> str:
    cells = ["–" if x is None else f"{x:.1%}" for x in (*row, statistics.mean(averaged))]
    return f"| {' | '.join([name, *cells])} |"


def width_table(result: dict[str, Any]) -> str:
    """Return coverage, half-width and power of both estimates for five prompts in five rounds."""
    lines = [
        "| machine | coverage, plain → robust | half-width, plain → robust"
        " | slowdown of 5 % shown, plain → robust |",
        "| --- | --- | --- | --- |",
    ]
    for one in result["cells"]:
        if (one["prompts"], one["rounds"]) != (5, 5):
            continue
        plain, robust = one["plain"], one["robust"]
        lines.append(
            f"| {one['machine']} | {plain['coverage']:.1%} → {robust['coverage']:.1%}"
            f" | {plain['half_width']:.1%} → {robust['half_width']:.1%}"
            f" | {plain['shown at 1.05']:.0%} → {robust['shown at 1.05']:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Simulate, or print the tables of the saved result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="comparisons in each cell")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        RESULTS.write_text(json.dumps(run(options.count), indent=2) + "\n")
    result = json.loads(RESULTS.read_text())
    print(f"{coverage_table(result)}\n\n{width_table(result)}")


if __name__ == "__main__":
    main()
