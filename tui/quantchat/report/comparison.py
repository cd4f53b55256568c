"""Several runs side by side, as parts of a document and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from quantchat.document.document import (
    Block,
    Cell,
    Column,
    Paragraph,
    Role,
    Table,
    cells,
    paragraph,
    table,
    warnings,
)
from quantchat.document.figures import UNKNOWN, number, plural, size
from quantchat.document.model_results import heading, not_comparable
from quantchat.features.measure.tables import CONTENDED, failures, how, ratio_texts
from quantchat.snapshot import compared_sides, figures
from quantchat.snapshot.compare import PairCompared, RunsCompared
from quantchat.snapshot.compared_sides import Run
from quantchat.snapshot.figures import AnswerFigure, ProcessFigure
from quantchat.snapshot.gates import Status, Verdict
from quantchat.wire.variant import loops_differ

MOST_WARNINGS = 5
"""How many warnings on a run are shown one by one."""

_ROLES: dict[Status, Role] = {
    "failed": "bad",
    "not shown": "warning",
    "passed": "good",
    "undecided": "warning",
}


def blocks(result: RunsCompared, verdicts: Sequence[Verdict]) -> list[Block]:
    """Return the means, the ratios, what differed, the warnings, and the gates."""
    parts: list[Block] = []
    for position, run in enumerate(result.runs, 1):
        parts += _run(position, run)
    parts += [_means_table(result), *_ratios_tables(result.pairs)]
    if result.differences:
        letters = [column.letter for column in result.columns]
        parts.append(differences_table(result, letters))
    else:
        parts.append(paragraph("Nothing that is recorded differed in how they ran."))
    parts += not_comparable(result.obstacles)
    return [*parts, *map(_verdict, verdicts)]


def _run(position: int, run: Run) -> list[Block]:
    snapshot = run.snapshot
    against = [CONTENDED] if run.measurement.order == "together" else []
    against += run.measurement.flags
    shown = against[:MOST_WARNINGS]
    if (more := len(against) - MOST_WARNINGS) > 0:
        shown.append(f"and {plural(more, 'warning')} more")
    failed = failures(snapshot)
    return [
        *heading(position, run.file, snapshot),
        paragraph(f"measured {how(snapshot)}", indent=2),
        *warnings(shown, indent=2),
        *warnings([failed] if failed else [], "bad", indent=2),
    ]


def _means_table(result: RunsCompared) -> Table:
    """Return the means, headed by the names that gates use, which end in the unit."""
    # A figure that no run has, such as energy on a CPU, would only take room.
    known = [
        figure
        for figure in figures.FIGURES
        if any(column.mean(figure) is not None for column in result.columns)
    ]
    headings = [Column(), Column("run", right=True), Column("variant")]
    for figure in known:
        name, sign, unit = figure.name.rpartition("_")
        headings.append(Column(name, right=True, heading_end=f"{sign}{unit}"))
    rows = [
        (
            Cell(column.letter, role="heading"),
            Cell(str(column.number)),
            Cell(column.label),
            *(Cell(_mean(figure, column.mean(figure))) for figure in known),
        )
        for column in result.columns
    ]
    return table("Means; --fail-if calls them a.ttft_ms, b.decode_tps, …", headings, rows)


def _mean(figure: AnswerFigure | ProcessFigure, mean: float | None) -> str:
    if mean is None:
        return UNKNOWN
    return size(int(mean)) if figure.unit == "B" else number(mean)


def _ratios_tables(pairs: Sequence[PairCompared]) -> Iterator[Table]:
    """Yield a table of right against left in each run, and one of a variant between runs."""
    columns = (
        Column(role="heading"),
        Column("figure"),
        Column("ratio", right=True),
        Column("95 % interval"),
    )
    for kind, one_kind in groupby(pairs, key=lambda pair: pair.kind):
        rows: list[tuple[Cell, ...]] = []
        groups = set()
        for pair in one_kind:
            groups.add(len(rows))
            name = f"{pair.b.letter} ÷ {pair.a.letter}"
            if not pair.figures:
                rows.append(cells((name, "no figure was measured on both", UNKNOWN, UNKNOWN)))
            for one in pair.figures:
                rows.append(cells((name, one.figure, *ratio_texts(one.ratio))))
                name = ""
            if pair.figures and loops_differ(pair.a.resolved, pair.b.resolved):
                note = Cell("different decode loops", role="warning")
                rows.append(cells(("", note, "", "")))
        title = f"Ratios {kind}, paired by prompt and round"
        yield Table(title, columns, tuple(rows), frozenset(groups))


_ORDERS = {"in-turn": "one at a time"}
"""Values of a difference that are written otherwise for people."""


def differences_table(result: RunsCompared, sides: Sequence[str]) -> Table:
    """Return what differed in how the columns ran, with `sides` as their headings."""
    columns = [Column(role="quiet"), *(Column(side) for side in sides)]
    rows = [
        (one.what, *(_ORDERS.get(text, text) or UNKNOWN for text in one.values))
        for one in result.differences
    ]
    return table("What differed in how they ran", columns, rows)


# ------------------------------------------------------------ gates

_WHY_NONE = "measured once, or with resident memory, or divided by what may be zero"


def _verdict(verdict: Verdict) -> Paragraph:
    status = (verdict.status, _ROLES[verdict.status])
    return paragraph(status, f"  {verdict.gate}: {_found(verdict)}")


def _found(verdict: Verdict) -> str:
    found = f"{verdict.quantity} is {verdict.value:.4g}"
    threshold = f"{verdict.threshold:.4g}"
    if verdict.low is None or verdict.high is None:
        resident = "resident memory differs from process to process"
        reason = _WHY_NONE if verdict.sampled else resident
        return f"{found}, with no interval to compare with {threshold}: {reason}"
    if not verdict.sampled:
        return f"{found}, compared with {threshold} as it is: memory is no sample"
    interval = f"95 % CI {verdict.low:.4g} to {verdict.high:.4g}"
    ends = {
        "failed": f"the whole interval fails at {threshold}",
        "not shown": f"met, but {threshold} lies in the interval",
    }
    end = ends.get(verdict.status, f"not met at {threshold}")
    return f"{found} ({interval}): {end}"


# ------------------------------------------------------------ JSON


def json_document(result: RunsCompared, verdicts: Sequence[Verdict]) -> dict[str, object]:
    """Return all that `blocks` shows as JSON values; text is raw, as it was recorded."""
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


def _column(column: compared_sides.Column) -> dict[str, object]:
    means = {figure.name: column.mean(figure) for figure in figures.FIGURES}
    return {"column": column.letter, "run": column.number, "variant": column.label, **means}


def _ratio(pair: PairCompared) -> dict[str, object]:
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
