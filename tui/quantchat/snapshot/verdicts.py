"""The three outcomes of a gate, and how much more measuring would decide an undecided one.

A gate states a condition. It is *shown* if every value in the 95 % interval meets it, *shown
otherwise* if no value does, and *undecided* if only some do, or if there is no interval.
`--fail-if` fails if its condition is shown, `--fail-unless` if the opposite is shown. An undecided
gate neither passes nor fails: weak data must not pass a build.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from quantchat.errors import UserError
from quantchat.snapshot.expression import Binary, Expression, Gate, Relation, evaluate, names_in
from quantchat.snapshot.pick import Outcome

Status = Literal["passed", "failed", "undecided"]

PASSED, FAILED, UNDECIDED = 0, 1, 2
"""Exit statuses of a command with gates."""

POWER: Final = ((1.960 + 0.842) / 1.960) ** 2
"""Factor for a statistical power of 80 %. With (half the interval's width ÷ the distance from value
to threshold)² times the data, half of all measurements would decide the gate; with `POWER` times
that amount, four of five would. 1.960 and 0.842 are the quantiles of the normal distribution for
95 % confidence and 80 % power."""

MAX_FACTOR = 10_000
"""If a decision needs more than this many times the present data, no number is suggested."""

_MET: dict[Relation, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
"""Relation → the function that checks whether it holds between two values."""
_MIRRORED: dict[Relation, Relation] = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
"""Relation → the relation after its two sides are exchanged."""


@dataclass(frozen=True)
class JudgedQuantity:
    """The values that a gate compares: a measured quantity with its interval, and a threshold."""

    quantity: str
    """What was compared with the threshold, such as `b ÷ a, TPOT` or `left − right`."""
    value: float
    low: float | None
    high: float | None
    threshold: float
    relation: Relation
    """The relation of `value` to `threshold` that meets the condition."""
    sampled: bool = True
    """False if the gate has only figures of processes, such as memory, which are single values."""
    why: str = ""
    """Why there is no interval, for the case that there is none."""
    units: int = 0
    """Number of `unit`s from which the interval is computed; 0 if more of them would not help."""
    unit: str = ""
    """What the independent units are, e.g. `prompt`, `round` or `token`."""
    is_ratio: bool = False
    """Whether `value` is a ratio. Then its distance to `threshold` is that of their logarithms."""

    @property
    def outcome(self) -> Outcome:
        """Return whether the interval lies on one side of the threshold, and on which."""
        if self.low is None or self.high is None:
            return "undecided"
        met = {_MET[self.relation](end, self.threshold) for end in (self.low, self.high)}
        if len(met) > 1:
            return "undecided"
        return "shown" if met.pop() else "shown otherwise"

    @property
    def needed(self) -> int | None:
        """Return how many of `unit` would decide in four of five cases, if `value` is the truth.

        None if the gate is decided, if no such number is known, or if it is too large
        (`MAX_FACTOR`).
        """
        if self.outcome != "undecided" or self.low is None or self.high is None or not self.units:
            return None
        ends = (self.low, self.high, self.value, self.threshold)
        if self.is_ratio:
            if min(ends) <= 0:
                return None
            ends = tuple(math.log(end) for end in ends)  # type: ignore[assignment]
        low, high, value, threshold = ends
        distance = abs(value - threshold)
        if not distance:
            return None
        factor = POWER * ((high - low) / 2 / distance) ** 2
        return math.ceil(self.units * factor) if factor <= MAX_FACTOR else None


@dataclass(frozen=True)
class Verdict:
    """The result of a gate."""

    gate: Gate
    judged: JudgedQuantity

    @property
    def status(self) -> Status:
        """Return whether the gate passes."""
        if self.judged.outcome == "undecided":
            return "undecided"
        shown = self.judged.outcome == "shown"
        return "failed" if shown == (self.gate.option == "--fail-if") else "passed"


def exit_status(verdicts: Iterable[Verdict]) -> int:
    """Return 1 if a gate failed, else 2 if one is undecided, else 0."""
    statuses = {verdict.status for verdict in verdicts}
    if "failed" in statuses:
        return FAILED
    return UNDECIDED if "undecided" in statuses else PASSED


def against_number(gate: Gate) -> tuple[str, Expression, float, Relation]:
    """Return the quantity that `gate` judges: its name, expression, threshold and relation.

    If one side of the gate has no figure, it is the threshold, and the quantity is the other side.
    Otherwise the quantity is left minus right, and the threshold is 0. Raises UserError if the
    threshold divides by zero.
    """
    try:
        if not any(names_in(gate.right)):
            return str(gate.left), gate.left, float(evaluate(gate.right, {})), gate.relation
        if not any(names_in(gate.left)):
            turned = _MIRRORED[gate.relation]
            return str(gate.right), gate.right, float(evaluate(gate.left, {})), turned
    except (ZeroDivisionError, OverflowError):
        raise no_number(gate) from None
    return "left − right", Binary("-", gate.left, gate.right), 0.0, gate.relation


def no_number(gate: Gate) -> UserError:
    """Return the error for a gate that divides by zero."""
    return UserError("has no finite value, because it divides by zero", where=gate.where)
