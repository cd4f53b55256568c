"""Several runs side by side: as tables (Rich), and as one JSON document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantchat.document.figures import UNKNOWN, number, plural, size
from quantchat.document.several import heading, not_comparable
from quantchat.document.style import plain_table
from quantchat.features.measure.tables import CONTENDED, failures, flags, how, ratio_cells
from quantchat.snapshot.compare import PairCompared, RunsCompared
from quantchat.snapshot.compared_sides import Column, Run
from quantchat.snapshot.figures import FIGURES, AnswerFigure, ProcessFigure
from quantchat.snapshot.gates import Status, Verdict
from quantchat.text import one_line
from quantchat.wire.variant import loops_differ

MOST_DOUBTS = 5
"""Doubts of one run that are told one by one."""

_STYLES: dict[Status, str] = {
    "failed": "red",
    "not shown": "yellow",
    "passed": "green",
    "undecided": "yellow",
}


def render(result: RunsCompared, verdicts: Sequence[Verdict]) -> Group:
    """The means, the ratios, what differed, what casts doubt, and the gates."""
    parts: list[RenderableType] = [
        *(_run(number, run) for number, run in enumerate(result.runs, 1)),
        _means_table(result),
        *_ratios_tables(result.pairs),
    ]
    if result.differences:
        parts.append(_differences_table(result))
    else:
        parts.append(Text("Nothing that is recorded differed in how they ran."))
    parts += not_comparable(result.obstacles)
    parts += [_verdict(verdict) for verdict in verdicts]
    return Group(*parts)


def _run(position: int, run: Run) -> Text:
    snapshot = run.snapshot
    text = heading(position, run.file, snapshot).append(f"\n  measured {how(snapshot)}")
    doubts = [CONTENDED] if run.measurement.order == "together" else []
    doubts += flags(snapshot)
    for line in doubts[:MOST_DOUBTS]:
        text.append(f"\n  ! {line}", style="yellow")
    if (more := len(doubts) - MOST_DOUBTS) > 0:
        text.append(f"\n  ! and {plural(more, 'doubt')} more", style="yellow")
    if failed := failures(snapshot):
        text.append(f"\n  ! {failed}", style="red")
    return text


def _means_table(result: RunsCompared) -> Table:
    """Headed by the names that gates use, which say the units as well."""
    table = plain_table("Means; --fail-if names them so: a.ttft_ms, b.decode_tps, …")
    table.add_column("")
    table.add_column("run", justify="right")
    table.add_column("variant", overflow="fold")
    # One that no run has, as energy on a processor, would only take room.
    known = [f for f in FIGURES if any(column.mean(f) is not None for column in result.columns)]
    for figure in known:
        # Broken before its unit, to leave room on narrow terminals.
        table.add_column("\n_".join(figure.name.rsplit("_", 1)), justify="right")
    for column in result.columns:
        table.add_row(
            Text(column.letter, style="bold"),
            str(column.number),
            Text(one_line(column.label)),
            *(_amount(figure, column.mean(figure)) for figure in known),
        )
    return table


def _amount(figure: AnswerFigure | ProcessFigure, calibration_size: float | None) -> str:
    if calibration_size is None:
        return UNKNOWN
    return size(int(calibration_size)) if figure.unit == "B" else number(calibration_size)


def _ratios_tables(pairs: Sequence[PairCompared]) -> Iterator[Table]:
    """One for right against left in each run, one for the same variants between runs."""
    for kind, one_kind in groupby(pairs, key=lambda pair: pair.kind):
        table = plain_table(f"Ratios {kind}, paired by prompt and round")
        table.add_column("", style="bold")
        table.add_column("figure")
        table.add_column("ratio", justify="right")
        table.add_column("95 % interval")
        for pair in one_kind:
            table.add_section()
            name = f"{pair.b.letter} ÷ {pair.a.letter}"
            if not pair.figures:
                table.add_row(name, "nothing was measured on both", UNKNOWN, UNKNOWN)
            for one in pair.figures:
                table.add_row(name, one.figure, *ratio_cells(one.ratio))
                name = ""
            if pair.figures and loops_differ(pair.a.resolved, pair.b.resolved):
                table.add_row("", Text("different decode loops", style="yellow"), "", "")
        yield table


def _differences_table(result: RunsCompared) -> Table:
    table = plain_table("What differed in how they ran")
    table.add_column("", style="dim")
    for column in result.columns:
        table.add_column(Text(column.letter), overflow="fold")
    for one in result.differences:
        cells = (Text(one_line(text) or UNKNOWN) for text in one.values)
        table.add_row(Text(one_line(one.what)), *cells)
    return table


# ------------------------------------------------------------ gates

_WHY_NONE = "measured once, or with resident memory, or divided by what may be zero"


def _verdict(verdict: Verdict) -> Text:
    return Text.assemble(
        (verdict.status, _STYLES[verdict.status]),
        f"  {one_line(str(verdict.gate))}: {_found(verdict)}",
    )


def _found(verdict: Verdict) -> str:
    found = f"{verdict.quantity} is {verdict.value:.4g}"
    threshold = f"{verdict.threshold:.4g}"
    if verdict.low is None or verdict.high is None:
        resident = "resident memory differs from process to process"
        reason = _WHY_NONE if verdict.sampled else resident
        return f"{found}, with no interval to hold against {threshold}: {reason}"
    if not verdict.sampled:
        return f"{found}, held against {threshold} as it stands: memory is no sample"
    interval = f"95 % CI {verdict.low:.4g} to {verdict.high:.4g}"
    ends = {
        "failed": f"all of it on the failing side of {threshold}",
        "not shown": f"met, but the interval holds {threshold}",
    }
    end = ends.get(verdict.status, f"not met at {threshold}")
    return f"{found} ({interval}): {end}"


# ------------------------------------------------------------ JSON


def document(result: RunsCompared, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """All that `render` shows, as plain JSON values; text is raw, as it was recorded."""
    letters = [column.letter for column in result.columns]
    return {
        "comparable": not result.obstacles,
        "obstacles": result.obstacles,
        "runs": [
            {
                "run": position,
                "file": run.file,
                "name": run.snapshot.name,
                "created": run.snapshot.created,
                "order": run.measurement.order,
                "rounds": run.measurement.rounds,
                "prompts": len(run.measurement.tasks),
                "stopped": run.measurement.stopped,
                "ignore_eos": run.measurement.ignore_eos,
                "flags": run.measurement.flags,
                "failures": failures(run.snapshot),
            }
            for position, run in enumerate(result.runs, 1)
        ],
        "columns": [_column(column) for column in result.columns],
        "ratios": [_ratio(pair) for pair in result.pairs],
        "differences": [
            {"what": one.what, "values": dict(zip(letters, one.values, strict=True))}
            for one in result.differences
        ],
        "gates": [
            {
                "gate": str(verdict.gate),
                "status": verdict.status,
                "quantity": verdict.quantity,
                "value": verdict.value,
                "low": verdict.low,
                "high": verdict.high,
                "threshold": verdict.threshold,
                "sampled": verdict.sampled,
            }
            for verdict in verdicts
        ],
    }


def _column(column: Column) -> dict[str, Any]:
    means = {figure.name: column.mean(figure) for figure in FIGURES}
    return {"column": column.letter, "run": column.number, "variant": column.label, **means}


def _ratio(pair: PairCompared) -> dict[str, Any]:
    return {
        "kind": pair.kind,
        "of": pair.b.letter,
        "to": pair.a.letter,
        "figures": {
            one.name: {
                "ratio": one.ratio.value,
                "low": one.ratio.low,
                "high": one.ratio.high,
                "pairs": one.ratio.pairs,
                "prompts": one.ratio.prompts,
                "clusters": one.ratio.clusters,
                "clustered_by": one.ratio.clustered_by,
                "difference_shown": one.ratio.shown,
            }
            for one in pair.figures
        },
    }
