"""Ratios of the figures of two columns, from the measured turns of their snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quantchat.snapshot.compared_sides import Column, Run, columns, figures_of, measured_turns
from quantchat.snapshot.figures import AnswerFigure, ProcessFigure
from quantchat.snapshot.schema import Snapshot
from quantchat.statistics.intervals import (
    Pair,
    Ratio,
    exact_ratio,
    ratio_of,
    sides_of,
    single_ratio,
)
from quantchat.statistics.latency import Percentiles, itl_ms


@dataclass(frozen=True)
class FigureComparison:
    """One figure of two columns `a` and `b`: a typical value of each, and the ratio b ÷ a."""

    name: str
    """The figure's name in gates, JSON and CSV."""
    figure: str
    """The figure's title."""
    unit: str
    a: float
    b: float
    ratio: Ratio
    less_is_better: bool | None


@dataclass(frozen=True)
class Gaps:
    """Percentiles of the inter-token latencies of one variant over all measured answers."""

    variant: str
    itl_ms: Percentiles
    tokens: int
    """Number of gaps between tokens that were pooled."""


def compare_sides(snapshot: Snapshot) -> list[FigureComparison]:
    """Compare the right with the left variant of a snapshot.

    Raises UserError if the snapshot has no measurement.
    """
    left, right = columns([Run("", snapshot)])
    return compare(left, right)


def compare(a: Column, b: Column) -> list[FigureComparison]:
    """Compare `b` with `a` in each figure that both columns have.

    Figures of answers are paired by task and round and clustered by task. Answers without a
    partner, such as those to a prompt that only one run has, are left out.
    """
    return [
        one
        for figure in figures_of((a, b))
        if (one := _figure_comparison(figure, a, b)) is not None
    ]


def _figure_comparison(
    figure: AnswerFigure | ProcessFigure, a: Column, b: Column
) -> FigureComparison | None:
    if isinstance(figure, ProcessFigure):
        of_a, of_b = a.value(figure), b.value(figure)
        if of_a is None or of_b is None:
            return None
        # An exact figure, such as the bytes of the weights, does not vary from run to run.
        ratio = exact_ratio(of_a, of_b) if figure.exact else single_ratio(of_a, of_b)
    else:
        pairs = list(_pairs(figure, a, b))
        found = ratio_of(pairs)
        if found is None:
            return None
        ratio = found
        of_a, of_b = sides_of(pairs, ratio.value)  # `of_b` ÷ `of_a` is the ratio
    return FigureComparison(
        figure.name, figure.title, figure.unit, of_a, of_b, ratio, figure.less_is_better
    )


def _pairs(figure: AnswerFigure, a: Column, b: Column) -> Iterator[Pair]:
    others = b.samples(figure)
    for (task, round_), value in a.samples(figure).items():
        if (task, round_) in others:
            yield Pair(task, round_, value, others[task, round_])


def pooled_gaps(snapshot: Snapshot) -> list[Gaps]:
    """Return percentiles of the ITL of each side over all its measured answers."""
    pooled = []
    for label in snapshot.shown:
        gaps = [
            gap
            for turn in measured_turns(snapshot)
            for answer in turn.answers
            if answer.variant == label and answer.state == "done"
            for gap in itl_ms(answer.times_ns)
        ]
        percentiles = Percentiles.of(gaps)
        if percentiles is not None:
            pooled.append(Gaps(label, percentiles, len(gaps)))
    return pooled
