"""The mean of each prompt of a measurement, as a table (Rich)."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from rich.table import Table
from rich.text import Text

from quantchat.document.figures import ORDERS, UNKNOWN, milliseconds, number
from quantchat.document.series import Series, all_series, letter, reported_turns
from quantchat.document.style import plain_table
from quantchat.snapshot.compared_sides import measured_turns
from quantchat.snapshot.schema import AnswerRecord, Snapshot
from quantchat.text import one_line

_EXCERPT = 70
"""Characters of a prompt in a table."""


def per_prompt(snapshot: Snapshot, most: int | None = None) -> Table | None:
    """Mean decode throughput and TTFT of each prompt over its rounds; None without a measurement.

    Of the first `most` prompts, where that is given.
    """
    if snapshot.measurement is None or not measured_turns(snapshot):
        return None
    series = all_series(snapshot)
    tasks = snapshot.measurement.tasks
    table = plain_table(_title(snapshot, most), title_style="bold")
    table.add_column("prompt", overflow="fold")
    table.add_column("tokens", justify="right", no_wrap=True)
    for figure in ("tok/s", "TTFT"):
        for one in series:
            table.add_column(f"{letter(one.place)}: {figure}", justify="right", no_wrap=True)
    answers = [_by_task(snapshot, one) for one in series]
    for number_, task in enumerate(tasks[:most], start=1):
        of_task = [by_task.get(number_, []) for by_task in answers]
        lengths = sorted({answer.prompt_tokens for group in of_task for answer in group})
        rates = [_mean(answer.timing.decode_tok_s for answer in group) for group in of_task]
        waits = [_mean(answer.timing.ttft_ms for answer in group) for group in of_task]
        table.add_row(
            Text(f"{number_}. {_excerpt(task.prompt)}"),
            " / ".join(map(str, lengths)) or UNKNOWN,
            *map(number, rates),
            *map(milliseconds, waits),
        )
    return table


def _title(snapshot: Snapshot, most: int | None) -> str:
    measurement = snapshot.measurement
    if measurement is None:
        return ""
    count = len(measurement.tasks)
    of = "" if most is None or count <= most else f" of the first {most} of {count}"
    return f"Mean{of or ' of each prompt'}, {ORDERS[measurement.order]}"


def _by_task(snapshot: Snapshot, series: Series) -> dict[int | None, list[AnswerRecord]]:
    told = reported_turns(snapshot)
    found: dict[int | None, list[AnswerRecord]] = {}
    for turn, answer in zip(series.turns, series.answers, strict=True):
        found.setdefault(told[turn - 1].task, []).append(answer)
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _excerpt(text: str) -> str:
    short = one_line(text)
    return short if len(short) <= _EXCERPT else short[: _EXCERPT - 1] + "…"
