"""Tables with figures down and variants across (Rich), all text of theirs neutral."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from rich.table import Table
from rich.text import Text

from quantchat.document.style import plain_table
from quantchat.text import one_line

Row = tuple[str, list[Text]]
"""A name, and a cell for each variant."""

_T = TypeVar("_T")


def variant_table(title: str, labels: Iterable[str], rows: Iterable[Row]) -> Table:
    """Figures down, variants across. Rows in which no cell says anything are left out."""
    table = plain_table(title)
    table.add_column("", style="dim")
    for label in labels:
        table.add_column(Text(one_line(label)), overflow="fold")
    for name, cells in rows:
        if any(cell.plain for cell in cells):
            table.add_row(Text(name), *cells)
    return table


def row(name: str, given: Iterable[_T], tell: Callable[[_T], object]) -> Row:
    """What `tell` says of each of `given`, in a row called `name`; nothing where it is None."""
    return name, [Text(one_line(str(tell(one) or ""))) for one in given]
