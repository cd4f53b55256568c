"""Compares several measurements (runs): the ratios of their figures, and how they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from quantchat.snapshot.compared_sides import (
    Column,
    Run,
    columns,
    pairs_between_runs,
    pairs_within_runs,
)
from quantchat.snapshot.ratios import FigureComparison, compare
from quantchat.snapshot.run_diff import Difference, differences, obstacles, raise_unless_forced


@dataclass(frozen=True)
class PairCompared:
    """The figures of column `b` compared with those of column `a`."""

    kind: Literal["within a run", "between runs"]
    """`within a run`: the two variants of one run. `between runs`: one variant in two runs."""
    a: Column
    b: Column
    figures: list[FigureComparison]


@dataclass(frozen=True)
class RunsCompared:
    """The result of a comparison of runs."""

    runs: list[Run]
    columns: list[Column]
    pairs: list[PairCompared]
    differences: list[Difference]
    obstacles: list[str]
    """Why the runs are not comparable, if they were compared with `force`."""


def compare_runs(runs: Sequence[Run], *, force: bool = False) -> RunsCompared:
    """Compare the two variants of each run, and each variant between runs.

    Between runs, a variant is compared with the same variant in the first run that has it.

    Raises NotComparable, unless `force` is set, if there are reasons why the runs are not
    comparable (see `run_diff.obstacles`).
    """
    sides = columns(runs)
    against = raise_unless_forced(obstacles(runs, sides), force=force)
    pairs = [
        *(PairCompared("within a run", a, b, compare(a, b)) for a, b in pairs_within_runs(sides)),
        *(PairCompared("between runs", a, b, compare(a, b)) for a, b in pairs_between_runs(sides)),
    ]
    return RunsCompared(list(runs), sides, pairs, differences(sides), against)
