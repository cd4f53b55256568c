"""Render documents for a terminal with Rich; only this module creates Rich objects from them.

All text becomes `Text`, which Rich never parses as markup. Control characters are replaced by
visible marks.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from quantchat.document.document import (
    Block,
    Cell,
    Column,
    Facts,
    Paragraph,
    Role,
    Table,
    Verbatim,
    Warnings,
)
from quantchat.text import flat, neutralise, one_line

_STYLES: dict[Role, str] = {
    "plain": "",
    "heading": "bold",
    "quiet": "dim",
    "good": "green",
    "warning": "yellow",
    "bad": "red",
    "grave": "bold red",
}
"""Rich's style for each role."""


def renderable(blocks: Iterable[Block]) -> Group:
    """Return `blocks` as one renderable of Rich."""
    return Group(*(one for block in blocks for one in _rendered(block)))


def _rendered(block: Block) -> Iterable[RenderableType]:
    if isinstance(block, Table):
        return [_table(block)]
    if isinstance(block, Verbatim):
        return [Text(neutralise(block.text), style=_STYLES[block.role])]
    if isinstance(block, Facts):
        return [Text(one_line(line)) for line in block.lines]
    if isinstance(block, Warnings):
        style = _STYLES[block.role]
        lines = [Text(f"! {one_line(line)}", style=style) for line in block.lines]
        return [_indented(line, block.indent) for line in lines]
    return [_indented(_paragraph(block), block.indent)]


def _indented(text: Text, columns: int) -> RenderableType:
    return Padding(text, (0, 0, 0, columns), expand=False) if columns else text


def _paragraph(paragraph: Paragraph) -> Text:
    text = Text(no_wrap=True, overflow="ignore") if not paragraph.wrap else Text()
    for span in paragraph.spans:
        text.append(flat(span.text), style=_STYLES[span.role])
    return text


def _table(table: Table) -> RichTable:
    bare = not any(column.heading for column in table.columns)
    drawn = RichTable(
        title=Text(one_line(table.title)) if table.title else None,
        title_justify="left",
        box=None if bare else box.SIMPLE_HEAD,
        show_header=not bare,
        show_footer=any(column.footer for column in table.columns),
        padding=(0, 1, 0, 0) if table.compact else (0, 1),
        pad_edge=False,
    )
    for column in table.columns:
        drawn.add_column(
            _heading(column),
            one_line(column.footer),
            justify="right" if column.right else "left",
            style=_STYLES[column.role],
            no_wrap=not column.wrap,
            overflow="fold",
        )
    for number, row in enumerate(table.rows):
        if number in table.groups:
            drawn.add_section()
        drawn.add_row(*map(_cell, row))
    return drawn


def _heading(column: Column) -> Text:
    heading = Text(one_line(column.heading))
    return heading.append(f"\n{one_line(column.heading_end)}") if column.heading_end else heading


def _cell(cell: Cell) -> Text:
    text = Text(" " * cell.indent + one_line(cell.text), style=_STYLES[cell.role])
    return text.append(f" {one_line(cell.aside)}", style="dim") if cell.aside else text
