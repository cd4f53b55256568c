"""A measurement as tables (Rich): both sides, B against A with its interval, and the doubts."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantchat.document.figures import ORDERS, milliseconds, number, plural, size
from quantchat.document.series import has_two_sides
from quantchat.document.style import plain_table
from quantchat.features.measure.headline import headline
from quantchat.snapshot.compared_sides import measured_turns
from quantchat.snapshot.ratios import Compared, compare_sides, pooled_gaps
from quantchat.snapshot.schema import MeasurementRecord, Snapshot
from quantchat.statistics.intervals import Ratio
from quantchat.text import one_line

CONTENDED = "contended: both decoded at once; not to be quoted"


def render(snapshot: Snapshot) -> Group:
    """The result of the measurement in `snapshot`. Raises ValueError where it holds none."""
    parts: list[RenderableType] = [
        Text.assemble(("Measured", "bold"), f" {how(snapshot)}"),
        *([ratios_table(snapshot)] if has_two_sides(snapshot) else []),
        *(Text(line, style="bold") for line in filter(None, [headline(snapshot)])),
        *(Text(line) for line in gap_lines(snapshot)),
    ]
    if _of(snapshot).order == "together":
        parts.append(Text(CONTENDED, style="yellow"))
    parts += [Text(f"! {flag}", style="yellow") for flag in flags(snapshot)]
    failed = failures(snapshot)
    if failed:
        parts.append(Text(f"! {failed}", style="red"))
    return Group(*parts)


def how(snapshot: Snapshot) -> str:
    """How it was measured, in a line. Raises ValueError where nothing was."""
    measurement = _of(snapshot)
    return (
        f"{ORDERS[measurement.order]}: {plural(len(measured_turns(snapshot)), 'turn')}, "
        f"{plural(len(measurement.tasks), 'prompt')}, {plural(measurement.rounds, 'round')}, "
        f"{measurement.warmup} warm-up"
        + (", on past the end of each answer" if _past_end(measurement) else "")
        + (", stopped before the end" if measurement.stopped else "")
    )


def ratios_table(snapshot: Snapshot) -> Table:
    """Each figure on both sides, B against A and its interval."""
    left, right = (one_line(label) for label in snapshot.shown)
    table = plain_table()
    table.add_column("mean", style="dim")
    table.add_column(Text(f"A: {left}"), justify="right", overflow="fold")
    table.add_column(Text(f"B: {right}"), justify="right", overflow="fold")
    table.add_column("B ÷ A", justify="right")
    table.add_column("95 % interval")
    for row in compare_sides(snapshot):
        table.add_row(row.figure, _value(row, row.a), _value(row, row.b), *ratio_cells(row.ratio))
    return table


def ratio_cells(ratio: Ratio) -> tuple[str, str]:
    """A ratio and its interval, or why there is none."""
    value = f"{ratio.value:.3f}"
    if ratio.low is None or ratio.high is None:
        return value, "none: measured once" if ratio.clustered_by else "none: read once"
    if not ratio.clustered_by:
        return value, "exact: counted"
    interval = f"{ratio.low:.3f} to {ratio.high:.3f}"
    if not ratio.shown:
        return value, f"{interval}, no difference shown"
    if ratio.prompts == 1:
        return value, f"{interval}, for this prompt alone"
    return value, interval


def gap_lines(snapshot: Snapshot) -> list[str]:
    """Percentiles of the pooled ITL of each side, a line each."""
    return [
        f"ITL of {one_line(gaps.variant)}: p50 {milliseconds(gaps.itl_ms.p50)}, "
        f"p95 {milliseconds(gaps.itl_ms.p95)}, p99 {milliseconds(gaps.itl_ms.p99)} "
        f"over {plural(gaps.tokens, 'gap')}"
        for gaps in pooled_gaps(snapshot)
    ]


def flags(snapshot: Snapshot) -> list[str]:
    """What casts doubt on the figures, a line each."""
    return [one_line(flag) for flag in _of(snapshot).flags]


def failures(snapshot: Snapshot) -> str:
    """How many measured answers failed, and why the first did; empty where none did."""
    failed = [a.failure for t in measured_turns(snapshot) for a in t.answers if a.failure]
    if not failed:
        return ""
    return f"{plural(len(failed), 'answer')} failed, the first: {one_line(failed[0].reason)}"


def _of(snapshot: Snapshot) -> MeasurementRecord:
    if snapshot.measurement is None:
        raise ValueError("the snapshot holds no measurement")
    return snapshot.measurement


def _past_end(measurement: MeasurementRecord) -> bool:
    """Whether the answers are as long as was asked; a task with a length of its own asks for it."""
    return measurement.ignore_eos or any(task.output_tokens for task in measurement.tasks)


def _value(row: Compared, value: float) -> str:
    if row.unit == "B":
        return size(int(value))
    return milliseconds(value) if row.unit == "ms" else f"{number(value)} {row.unit}"
