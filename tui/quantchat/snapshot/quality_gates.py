"""Judge a gate on scores, evaluations or load tests, such as `b.kld < 0.05`.

All models read the same tokens and answer the same questions, so the difference between a variant
and the reference is known more exactly than each figure by itself. Therefore the perplexity of a
variant is computed as the reference's times their paired ratio, and its accuracy as the reference's
plus their paired difference. The interval of an expression is that of its linear approximation (the
delta method). How the errors of two variants are correlated is not recorded, so the margins of
different measured quantities are added: the interval of an expression of two variants is then too
wide rather than too narrow. A margin is half the width of a 95 % interval.

Margins: a mean over tokens has the wider of two, with tokens or with passages as independent units
(`statistics.quality`). Counts of answers use the intervals of Agresti and Coull (1998) and, for
paired differences, of Agresti and Min (2005), which are valid for few changes, down to none. Rates
of a load test use Student's t over its rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from quantchat.errors import UserError
from quantchat.snapshot.evaluation import EvaluatedRecord, EvaluationRecord, PooledTasks, pool_tasks
from quantchat.snapshot.expression import Gate, Name, evaluate
from quantchat.snapshot.figures import Kind
from quantchat.snapshot.load_test import LoadTestedRecord, LoadTestRecord, points
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import ScoredRecord, ScoreRecord
from quantchat.snapshot.verdicts import JudgedQuantity, Verdict, against_number, no_number
from quantchat.statistics.flips import Flips
from quantchat.statistics.intervals import CONFIDENCE
from quantchat.statistics.quality import Quantity

NO_INTERVAL = "a single token or window has no error"

REFERENCE = "ref"
"""Name of the reference's column in gates."""


@dataclass(frozen=True)
class UncertainValue:
    """A measured value, the centre of its 95 % interval, and half the interval's width."""

    value: float
    centre: float
    margin: float


@dataclass(frozen=True)
class FigureFunction:
    """A figure as a function of measured quantities, each with a key that identifies it."""

    parts: tuple[tuple[Hashable, UncertainValue], ...]
    combine: Callable[..., float]
    """Returns the figure; its arguments are the values of `parts`, in this order."""

    def at(self, values: Mapping[Hashable, float]) -> float:
        """Return the figure for these values of the quantities."""
        return self.combine(*(values[key] for key, _ in self.parts))


@dataclass(frozen=True)
class QualityColumn:
    """One model of a score, evaluation or load test; `letter` is its name in gates."""

    letter: str
    label: str
    figure_of: Callable[[str], FigureFunction | None]
    """Returns the figure of this name, or None if it was not measured."""
    units: int
    """Number of `unit`s from which the figures are computed; 0 if nothing was measured."""
    unit: str
    """`token`, `question` or `round`."""


def judge_quality(gate: Gate, columns: Sequence[QualityColumn]) -> Verdict:
    """Return the verdict on `gate`, whose names all belong to `columns`.

    Raises UserError if one of its figures was not measured, or if it divides by zero.
    """
    by_letter = {column.letter: column for column in columns}
    what, tree, threshold, relation = against_number(gate)
    readings = {name: _required_figure(gate, name, by_letter) for name in gate.names}
    parts = {key: part for reading in readings.values() for key, part in reading.parts}

    def value(at: Mapping[Hashable, float]) -> float:
        return float(evaluate(tree, {name: one.at(at) for name, one in readings.items()}))

    centres = {key: part.centre for key, part in parts.items()}
    sampled = all(math.isfinite(part.margin) for part in parts.values())
    try:
        observed = value({key: part.value for key, part in parts.items()})
        middle, margin = value(centres), 0.0
        for key, part in parts.items() if sampled else ():
            # The quantity is varied by its whole margin, so this is the slope over the interval and
            # not at one point.
            ends = [value({**centres, key: part.centre + sign * part.margin}) for sign in (-1, 1)]
            margin += abs(ends[1] - ends[0]) / 2
    except (ZeroDivisionError, OverflowError):
        raise no_number(gate) from None
    if not all(map(math.isfinite, (observed, middle, margin, threshold))):
        raise no_number(gate)
    if not sampled:
        return Verdict(
            gate, JudgedQuantity(what, observed, None, None, threshold, relation, why=NO_INTERVAL)
        )
    column = by_letter[gate.names[0].column]
    low, high = min(observed, middle - margin), max(observed, middle + margin)
    judged = JudgedQuantity(
        what, observed, low, high, threshold, relation, units=column.units, unit=column.unit
    )
    return Verdict(gate, judged)


def _required_figure(
    gate: Gate, name: Name, by_letter: Mapping[str, QualityColumn]
) -> FigureFunction:
    reading = by_letter[name.column].figure_of(name.figure)
    if reading is None:
        raise UserError(f"{name} was not measured", where=gate.where)
    return reading


def quality_columns(
    kind: Kind, snapshots: Sequence[Snapshot], letters: Callable[[int], str]
) -> list[QualityColumn]:
    """Return a column for each variant of the snapshots that hold a result of `kind`.

    Letters continue from one snapshot to the next. The last column, `ref`, is the reference of the
    first of these snapshots, if there is one.
    """
    columns: list[QualityColumn] = []
    references: list[QualityColumn] = []
    for number, snapshot in enumerate(snapshots):
        if kind == "score" and snapshot.score is not None:
            found = _score_columns(number, snapshot.score)
        elif kind == "eval" and snapshot.evaluation is not None:
            found = _task_columns(number, snapshot.evaluation)
        elif kind == "load" and snapshot.load_test is not None:
            found = _load_test_columns(number, snapshot.load_test), None
        else:
            continue
        by_label, reference = found
        for variant in snapshot.variants:
            letter = letters(len(columns))
            if variant.label in by_label:
                columns.append(by_label[variant.label](letter))
            else:
                columns.append(QualityColumn(letter, variant.label, lambda figure: None, 0, ""))
        if reference is not None and not references:
            references.append(reference(REFERENCE))
    return [*columns, *references]


_MakeColumn = Callable[[str], QualityColumn]
"""Returns the column of a model; the argument becomes the letter of the column."""


# ------------------------------------------------------------ scores


def _score_columns(
    run: int, score: ScoreRecord
) -> tuple[dict[str, _MakeColumn], _MakeColumn | None]:
    setting = score.setting
    reference = next((one for one in score.models if one.role == "reference"), None)

    def column(model: ScoredRecord) -> _MakeColumn:
        def read(figure: str) -> FigureFunction | None:
            return _score_figure(figure, run, model, reference, setting.independent)

        return lambda letter: QualityColumn(letter, model.label, read, setting.tokens, "token")

    named = {one.label: column(one) for one in score.models if one.role != "floor"}
    return named, column(reference) if reference else None


def _score_figure(
    figure: str, run: int, model: ScoredRecord, reference: ScoredRecord | None, passages: int
) -> FigureFunction | None:
    divergence = model.divergence
    if figure == "perplexity" and reference is not None and reference.perplexity is not None:
        base = ((run, "perplexity"), mean_of_tokens(reference.perplexity, passages))
        if model is reference:
            return FigureFunction((base,), lambda perplexity: perplexity)
        if divergence is None:
            return None
        ratio = ((run, "log ratio", model.label), mean_of_tokens(divergence.log_ratio, passages))
        return FigureFunction((base, ratio), lambda perplexity, log: perplexity * math.exp(log))
    if divergence is None:
        return None
    percentiles = {one.percent: one.figure for one in divergence.kld_percentiles}
    quantities = {
        "kld": divergence.kld_mean,
        "kld_p99": percentiles.get(99.0),
        "top1_agreement": divergence.top1_agreement,
    }
    quantity = quantities.get(figure)
    if quantity is None:
        return None
    part = ((run, figure, model.label), mean_of_tokens(quantity, passages))
    return FigureFunction((part,), lambda value: value)


def mean_of_tokens(quantity: Quantity, passages: int) -> UncertainValue:
    """Return a mean over tokens with the wider of two margins.

    One takes tokens as independent units, the other passages, whose number is `passages`. The
    margin is infinite if there is no standard error.
    """
    from scipy import stats

    margins = []
    if quantity.error is not None:
        margins.append(float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * quantity.error)
    if quantity.clustered is not None and passages > 1:
        margins.append(float(stats.t.ppf((1 + CONFIDENCE) / 2, passages - 1)) * quantity.clustered)
    return UncertainValue(quantity.value, quantity.value, max(margins, default=math.inf))


# ------------------------------------------------------------ evaluations


def _task_columns(
    run: int, evaluation: EvaluationRecord
) -> tuple[dict[str, _MakeColumn], _MakeColumn | None]:
    reference = evaluation.reference

    def column(model: EvaluatedRecord) -> _MakeColumn:
        pooled = pool_tasks(model, None if model is reference else reference)

        def read(figure: str) -> FigureFunction | None:
            base = pool_tasks(reference, None) if reference else None
            return _task_figure(figure, run, model, pooled, base, itself=model is reference)

        count = pooled.questions if pooled else 0
        return lambda letter: QualityColumn(letter, model.label, read, count, "question")

    named = {one.label: column(one) for one in evaluation.models}
    return named, column(reference) if reference else None


def _task_figure(
    figure: str,
    run: int,
    model: EvaluatedRecord,
    pooled: PooledTasks | None,
    base: PooledTasks | None,
    *,
    itself: bool,
) -> FigureFunction | None:
    if pooled is None or base is None:
        return None
    own = ((run, "accuracy"), share(base.right, base.questions, base.design_effect))
    if figure == "accuracy" and itself:
        return FigureFunction((own,), lambda accuracy: accuracy)
    if pooled.flips is None:
        return None
    if figure == "accuracy":
        change = ((run, "change", model.label), paired_difference(pooled.flips))
        return FigureFunction((own, change), lambda accuracy, difference: accuracy + difference)
    flips = pooled.flips
    changed = share(flips.lost + flips.gained, flips.questions, flips.changes_design_effect)
    return FigureFunction((((run, figure, model.label), changed),), lambda value: value)


def share(count: int, of: int, design_effect: float = 1.0) -> UncertainValue:
    """Return the share `count` ÷ `of` with the interval of Agresti and Coull.

    The interval adds two successes and two failures. The `of` questions count as
    `of` ÷ `design_effect` independent units.
    """
    successes, units = count / design_effect, of / design_effect
    centre = (successes + 2) / (units + 4)
    return UncertainValue(count / of, centre, _z() * math.sqrt(centre * (1 - centre) / (units + 4)))


def paired_difference(flips: Flips) -> UncertainValue:
    """Return the model's accuracy minus the reference's, with its interval (`Flips.interval`)."""
    return UncertainValue(flips.difference, flips.centre, flips.margin)


def _z() -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


# ------------------------------------------------------------ load tests


def _load_test_columns(run: int, record: LoadTestRecord) -> dict[str, _MakeColumn]:
    def column(model: LoadTestedRecord) -> _MakeColumn:
        figures = [point.figures for point in points(record, model) if point.figures]

        def read(figure: str) -> FigureFunction | None:
            rates = [one for level in figures if (one := getattr(level, figure, None))]
            if not rates:
                return None
            best = max(rates, key=lambda rate: rate.value)
            margin = math.inf if best.high is None else best.high - best.value
            part = ((run, figure, model.label), UncertainValue(best.value, best.value, margin))
            return FigureFunction((part,), lambda value: value)

        return lambda letter: QualityColumn(letter, model.label, read, record.rounds, "round")

    return {model.label: column(model) for model in record.models}
