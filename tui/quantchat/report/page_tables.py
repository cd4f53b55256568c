"""Tables for a page: those of the terminal, cell by cell, and two that only a report has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from quantchat.document.figures import ORDERS, UNKNOWN, number, when
from quantchat.document.series import has_two_sides, how_compared
from quantchat.features.measure.tables import ratio_cells
from quantchat.snapshot.compare import RunsCompared
from quantchat.snapshot.ratios import compare_sides
from quantchat.snapshot.schema import Snapshot
from quantchat.text import one_line


@dataclass(frozen=True)
class Cell:
    """Neutral text on one line, and what is said of it more quietly."""

    text: str
    aside: str = ""


@dataclass(frozen=True)
class Grid:
    """A table as plain text. The first column names the rows."""

    title: str
    columns: list[str]
    right: list[bool]
    """Whether a column holds figures, to be set flush right."""
    rows: list[list[Cell]]


def grid(table: Table, title: str | None = None) -> Grid:
    """Return what `table` shows; its own title unless another is given."""
    columns = [[_cell(cell) for cell in column.cells] for column in table.columns]
    return Grid(
        title=_plain(table.title) if title is None else title,
        columns=[_plain(column.header) for column in table.columns],
        right=[column.justify == "right" for column in table.columns],
        rows=[list(row) for row in zip(*columns, strict=True)],
    )


def _plain(content: object) -> str:
    return content.plain if isinstance(content, Text) else str(content or "")


def _cell(content: object) -> Cell:
    """How a figure came about is what the terminal shows dimmed behind it."""
    text = _plain(content)
    dim = [s.start for s in content.spans if s.style == "dim"] if isinstance(content, Text) else []
    return Cell(text[: dim[0]].rstrip(), text[dim[0] :].strip()) if dim else Cell(text)


def overview(snapshots: Sequence[tuple[str, Snapshot]]) -> Grid:
    """A line for each snapshot, by its file's name: its sides, their speed, B against A."""
    rows = [
        [
            Cell(f"{number_}. {one_line(snapshot.name)}", one_line(file)),
            Cell(one_line(when(snapshot.created))),
            *_decoding(snapshot),
        ]
        for number_, (file, snapshot) in enumerate(snapshots, start=1)
    ]
    columns = ["snapshot", "saved", "how", "A", "B", "B ÷ A", "95 % interval"]
    return Grid("Decode throughput", columns, [False] * 3 + [True] * 3 + [False], rows)


def _decoding(snapshot: Snapshot) -> list[Cell]:
    labels = [*map(one_line, snapshot.shown), UNKNOWN, UNKNOWN][:2]
    how = "a chat"
    if not snapshot.turns and (snapshot.score or snapshot.evaluation):
        how = "a score" if snapshot.score else "an evaluation"
    cells = [UNKNOWN] * 4
    if snapshot.measurement is not None:
        order = ORDERS[snapshot.measurement.order]
        how = how_compared(snapshot) if has_two_sides(snapshot) else order
        for row in compare_sides(snapshot) if has_two_sides(snapshot) else []:
            if row.name == _DECODE:
                sides = (f"{number(side)} {row.unit}" for side in (row.a, row.b))
                cells = [*sides, *ratio_cells(row.ratio)]
    return [Cell(how), *map(Cell, cells[:2], labels), *map(Cell, cells[2:])]


_DECODE = "decode_tps"
"""Of the figures in `snapshot.figures`."""


def differences(compared: RunsCompared) -> Grid:
    """What differed in how the sides of several runs ran."""
    sides = [f"{column.number}: {one_line(column.label)}" for column in compared.columns]
    rows = [
        [Cell(one_line(one.what)), *(Cell(one_line(text) or UNKNOWN) for text in one.values)]
        for one in compared.differences
    ]
    return Grid("What differed in how they ran", ["", *sides], [False] * (len(sides) + 1), rows)
