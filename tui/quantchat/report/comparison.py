"""Several runs (saved measurements) side by side, as parts of a document and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from quantchat.document.document import (
    Block,
    Cell,
    Column,
    Table,
    cells,
    paragraph,
    table,
    warnings,
)
from quantchat.document.figures import UNKNOWN, number, plural, size
from quantchat.document.model_results import heading, not_comparable
from quantchat.document.verdicts import as_json as verdict_json
from quantchat.document.verdicts import line as verdict_line
from quantchat.features.measure.tables import CONTENDED, failures, how, ratio_texts
from quantchat.snapshot import compared_sides, figures
from quantchat.snapshot.compare import PairCompared, RunsCompared
from quantchat.snapshot.compared_sides import Run
from quantchat.snapshot.figures import AnswerFigure, ProcessFigure
from quantchat.snapshot.verdicts import Verdict
from quantchat.wire.variant import decode_modes_differ

MOST_WARNINGS = 5
"""How many warnings on a run are shown one by one."""


def blocks(result: RunsCompared, verdicts: Sequence[Verdict]) -> list[Block]:
    """Return the means, the ratios, the differences in how the runs ran, and warnings.

    The results of the gates (`verdicts`) come last.
    """
    parts: list[Block] = []
    for position, run in enumerate(result.runs, 1):
        parts += _run(position, run)
    parts += [_means_table(result), *_ratios_tables(result.pairs)]
    if result.differences:
        letters = [column.letter for column in result.columns]
        parts.append(differences_table(result, letters))
    else:
        parts.append(paragraph("No recorded setting or library differed between the runs."))
    parts += not_comparable(result.obstacles)
    return [*parts, *map(verdict_line, verdicts)]


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
    """Return the means under the names that gates use, with a column for each side of each run."""
    sides = result.columns
    headings = [
        Column("figure"),
        *(Column(f"{side.letter}: {side.label}", right=True) for side in sides),
    ]
    rows = [(Cell("run", role="quiet"), *(Cell(str(side.number)) for side in sides))]
    for figure in compared_sides.figures_of(sides):
        means = [side.mean(figure) for side in sides]
        # A figure that no run has, such as energy on a CPU, would only take room.
        if any(mean is not None for mean in means):
            rows.append((Cell(figure.name), *(Cell(_mean(figure, mean)) for mean in means)))
    return table("Means; gates call them a.ttft_ms, b.decode_tps, …", headings, rows)


def _mean(figure: AnswerFigure | ProcessFigure, mean: float | None) -> str:
    if mean is None:
        return UNKNOWN
    return size(int(mean)) if figure.unit == "B" else number(mean)


def _ratios_tables(pairs: Sequence[PairCompared]) -> Iterator[Table]:
    """Yield a table of the ratios right ÷ left within each run, and a table of ratios between runs.

    A ratio between runs compares a variant with itself in the first run that has it.
    """
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
            for compared in pair.figures:
                rows.append(cells((name, compared.figure, *ratio_texts(compared.ratio))))
                name = ""
            if pair.figures and decode_modes_differ(pair.a.model_info, pair.b.model_info):
                note = Cell("different decode modes", role="warning")
                rows.append(cells(("", note, "", "")))
        title = f"Ratios {kind}, paired by prompt and round"
        yield Table(title, columns, tuple(rows), frozenset(groups))


_ORDERS = {"in-turn": "one at a time"}
"""Recorded value → the words for it in the table of differences."""


def differences_table(result: RunsCompared, sides: Sequence[str]) -> Table:
    """Return a table of settings and libraries that differed, with `sides` as column headings."""
    columns = [Column(role="quiet"), *(Column(side) for side in sides)]
    rows = [
        (difference.what, *(_ORDERS.get(text, text) or UNKNOWN for text in difference.values))
        for difference in result.differences
    ]
    return table("What differed in how they ran", columns, rows)


# ------------------------------------------------------------ JSON


def json_document(result: RunsCompared, verdicts: Sequence[Verdict]) -> dict[str, object]:
    """Return all that `blocks` shows as JSON values; texts are unchanged, as they were recorded."""
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
            {"what": difference.what, "values": dict(zip(letters, difference.values, strict=True))}
            for difference in result.differences
        ],
        "gates": [verdict_json(verdict) for verdict in verdicts],
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
            compared.name: {
                "ratio": compared.ratio.value,
                "low": compared.ratio.low,
                "high": compared.ratio.high,
                "pairs": compared.ratio.pairs,
                "prompts": compared.ratio.prompts,
                "clusters": compared.ratio.clusters,
                "clustered_by": compared.ratio.clustered_by,
                "difference_shown": compared.ratio.shown,
                "detectable": compared.ratio.detectable,
            }
            for compared in pair.figures
        },
    }
