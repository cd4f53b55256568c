"""Parts of tables that features share: the head of a snapshot, figures with errors, notes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from quantchat.document.style import plain_table
from quantchat.snapshot.evaluation import EvaluatedRecord
from quantchat.snapshot.score import ScoredRecord
from quantchat.statistics.quality import Quantity
from quantchat.text import one_line

MOST_DECIMALS = 5

LARGE = 1e5
"""From here on a figure is written with an exponent."""

_Models = Sequence[ScoredRecord] | Sequence[EvaluatedRecord]


def new_table(title: str, *heads: str) -> Table:
    """An empty table: names on the left, figures flush right."""
    table = plain_table(title)
    for place, head in enumerate(heads):
        table.add_column(head, overflow="fold", justify="right" if place else "left")
    return table


def failures(models: _Models) -> list[str]:
    """Which of `models` failed and why, a line each."""
    return [
        f"{one_line(model.label)} failed: {one_line(model.failure.reason)}"
        for model in models
        if model.failure
    ]


def notes(models: _Models) -> list[str]:
    """What must be known of `models`, a line for each note with those that have it."""
    noted: dict[str, list[str]] = {}
    for model in models:
        if model.note:
            noted.setdefault(model.note, []).append(model.label)
    return [f"{one_line(', '.join(who))}: {one_line(note)}" for note, who in noted.items()]


def with_error(
    quantity: Quantity, *, times: float = 1.0, signed: bool = False, least: int = 0
) -> str:
    """A figure and its error, to two digits of the error; `least` decimals in any case.

    Nothing stands between ± and the error, so that a narrow table breaks before it.
    """
    value, sign = quantity.value * times, "+" if signed else ""
    error = None if quantity.wider is None else quantity.wider * times
    if abs(value) >= LARGE:
        form = f"{sign}.3g"
    else:
        scale = error or abs(value)
        needed = 1 - math.floor(math.log10(scale)) if scale else 0
        form = f"{sign}.{max(least, min(MOST_DECIMALS, needed))}f"
    told = f"{value:{form}}"
    return told if error is None else f"{told} ±{error:{form.lstrip('+')}}"
