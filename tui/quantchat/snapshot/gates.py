"""Judge a gate on measured runs.

A gate on one figure of two columns, such as `b.decode_tps < 0.95 * a.decode_tps`, is judged by
the ratio of the two columns' figures, paired by prompt and round, with the interval of
`statistics.intervals.ratio_of`. A gate that compares another expression with a number is judged by
the value of the expression, and any other gate by its left side minus its right side. In these
expressions each figure is its mean over the prompts, and the standard error comes from leaving out
one prompt or round at a time (jackknife). Memory is a single value without an interval: a gate
compares this value, and is decided only if every process that loads the variant would have the same
value (`Column.repeatable`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from quantchat.errors import UserError
from quantchat.snapshot.compared_sides import Column, TaskKey
from quantchat.snapshot.expression import (
    Expression,
    Gate,
    Name,
    Negative,
    Number,
    evaluate,
)
from quantchat.snapshot.figures import AnswerFigure, ProcessFigure, by_name
from quantchat.snapshot.ratios import compare
from quantchat.snapshot.verdicts import JudgedQuantity, Verdict, against_number, no_number
from quantchat.statistics.intervals import Row, interval_of

NOT_REPEATABLE = "resident memory differs from process to process"
NO_INTERVAL = "measured once, or divided by a value that may be zero"


def judge(gate: Gate, columns: Sequence[Column]) -> Verdict:
    """Return the verdict on `gate`, whose names all belong to `columns`.

    Raises UserError if one of its figures was not measured, or if it divides by zero.
    """
    by_letter = {column.letter: column for column in columns}
    return Verdict(gate, _ratio(gate, by_letter) or _difference(gate, by_letter))


# ------------------------------------------------------------ one figure of two columns


def _ratio(gate: Gate, by_letter: dict[str, Column]) -> JudgedQuantity | None:
    """Judge a gate that compares the ratio of one figure in two columns with a number.

    None for any other gate.
    """
    left, right = _monomial(gate.left), _monomial(gate.right)
    if left is None or right is None:
        return None
    if not (0 < left.factor < math.inf and 0 < right.factor < math.inf):
        return None
    left.powers.subtract(right.powers)
    powers = {name: power for name, power in left.powers.items() if power}
    if sorted(powers.values()) != [-1, 1]:
        return None
    a, b = sorted(powers, key=powers.__getitem__)
    if a.figure != b.figure:
        return None
    found = {one.name: one for one in compare(by_letter[a.column], by_letter[b.column])}
    if a.figure not in found:
        raise _missing(gate, [a, b], by_letter)
    ratio = found[a.figure].ratio
    figure = by_name()[a.figure]
    threshold = right.factor / left.factor
    what = f"{b.column} ÷ {a.column}, {figure.title}"
    relation = gate.relation  # b ÷ a is on the left side, so the relation stays
    if isinstance(figure, ProcessFigure):
        fixed = _repeatable([a, b], by_letter)
        end = ratio.value if fixed else None
        why = "" if fixed else NOT_REPEATABLE
        return JudgedQuantity(
            what, ratio.value, end, end, threshold, relation, sampled=False, why=why
        )
    return JudgedQuantity(
        what, ratio.value, ratio.low, ratio.high, threshold, relation,
        why=NO_INTERVAL, units=ratio.clusters, unit=ratio.clustered_by, is_ratio=True,
    )  # fmt: skip


class _Monomial(NamedTuple):
    """A number times powers of figures, each figure given by its `Name`."""

    factor: float
    powers: Counter[Name]


def _monomial(tree: Expression) -> _Monomial | None:
    """Return `tree` as a monomial; None if it is a sum or divides by zero."""
    if isinstance(tree, Number):
        return _Monomial(tree.value, Counter())
    if isinstance(tree, Name):
        return _Monomial(1.0, Counter([tree]))
    if isinstance(tree, Negative):
        of = _monomial(tree.of)
        return of and of._replace(factor=-of.factor)
    left, right = _monomial(tree.left), _monomial(tree.right)
    if left is None or right is None or (tree.sign == "/" and right.factor == 0):
        return None
    if tree.sign in ("+", "-"):
        if left.powers or right.powers:
            return None
        less = right.factor if tree.sign == "+" else -right.factor
        return _Monomial(left.factor + less, Counter())
    times = tree.sign == "*"
    powers = Counter(left.powers)
    (powers.update if times else powers.subtract)(right.powers)
    factor = left.factor * right.factor if times else left.factor / right.factor
    return _Monomial(factor, powers)


# ------------------------------------------------------------ any other gate


def _difference(gate: Gate, by_letter: dict[str, Column]) -> JudgedQuantity:
    """Judge any other gate, from the prompts and rounds that have all of its figures."""
    what, tree, threshold, relation = against_number(gate)
    sampled = [name for name in gate.names if isinstance(by_name()[name.figure], AnswerFigure)]
    fixed = {
        name: _process_value(gate, name, by_letter) for name in gate.names if name not in sampled
    }

    def statistic(means: Sequence[Any]) -> Any:
        return evaluate(tree, {**fixed, **dict(zip(sampled, means, strict=True))})

    units, unit = 0, ""
    try:
        if sampled:
            interval = interval_of(statistic, _rows(gate, sampled, by_letter))
            value, low, high = interval.value, interval.low, interval.high
            units, unit = interval.clusters, interval.clustered_by
        else:
            value = low = high = float(statistic([]))
    except (ZeroDivisionError, OverflowError):
        value = math.nan
    if not math.isfinite(value) or not math.isfinite(threshold):
        raise no_number(gate)
    repeatable = _repeatable(fixed, by_letter)
    if not repeatable:
        low = high = None
    return JudgedQuantity(
        what, value, low, high, threshold, relation, sampled=bool(sampled),
        why=NO_INTERVAL if repeatable else NOT_REPEATABLE,
        units=units if repeatable else 0, unit=unit,
    )  # fmt: skip


def _repeatable(names: Iterable[Name], by_letter: dict[str, Column]) -> bool:
    """Return whether the process figures among `names` have the same value in every process."""
    figures = ((by_name()[name.figure], by_letter[name.column]) for name in names)
    return all(
        column.repeatable(figure) for figure, column in figures if isinstance(figure, ProcessFigure)
    )


def _process_value(gate: Gate, name: Name, by_letter: dict[str, Column]) -> float:
    value = by_letter[name.column].mean(by_name()[name.figure])
    if value is None:
        raise _missing(gate, [name], by_letter)
    return value


def _rows(gate: Gate, sampled: Sequence[Name], by_letter: dict[str, Column]) -> list[Row]:
    """Return the values of the names for each prompt and round that has all of them."""
    measured = [_samples(name, by_letter) for name in sampled]
    shared = [key for key in measured[0] if all(key in one for one in measured)]
    if not shared:
        raise _missing(gate, sampled, by_letter)
    return [Row(*key, tuple(one[key] for one in measured)) for key in shared]


def _samples(name: Name, by_letter: dict[str, Column]) -> dict[tuple[TaskKey, int], float]:
    figure = by_name()[name.figure]
    assert isinstance(figure, AnswerFigure)  # noqa: S101  # the caller filtered
    return by_letter[name.column].samples(figure)


def _missing(gate: Gate, names: Sequence[Name], by_letter: dict[str, Column]) -> UserError:
    for name in names:
        if by_letter[name.column].mean(by_name()[name.figure]) is None:
            return UserError(f"{name} was not measured", where=gate.where)
    return UserError(
        "no prompt was measured in all columns of the gate",
        where=gate.where,
        hint="compare runs of the same prompts",
    )
