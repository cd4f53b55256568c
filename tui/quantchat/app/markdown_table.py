"""Tables as lines: columns as wide as they need, or as the room allows."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

_QUIET = "$quiet"
_BETWEEN = " │ "
_LEAST = 3
"""Cells a column keeps, however many there are."""


def table_lines(
    rows: Sequence[Sequence[Content]], aligned: Sequence[str], width: int, headless: bool = False
) -> list[Content]:
    """Draw `rows`, of which the first is the head; `headless` leaves it out, for a table's rest."""
    columns = len(rows[0])
    rows = [[*row[:columns], *[Content()] * (columns - len(row))] for row in rows]
    widths = column_widths(rows, width)
    between = Content.styled(_BETWEEN, _QUIET)
    lines: list[Content] = []
    for number, row in enumerate(rows):
        if number == 0 and headless:
            continue
        cells = [_wrapped(cell, room) for cell, room in zip(row, widths, strict=True)]
        for line in range(max(map(len, cells))):
            parts = [
                _placed(cell[line] if line < len(cell) else Content(), room, where)
                for cell, room, where in zip(cells, widths, aligned, strict=True)
            ]
            whole = between.join(parts)
            lines.append(whole.stylize("bold $primary") if number == 0 else whole)
        if number == 0:
            lines.append(Content.styled("─┼─".join("─" * room for room in widths), _QUIET))
    return [line.truncate(width) for line in lines]


def _wrapped(cell: Content, room: int) -> list[Content]:
    """`cell` in lines of `room` cells: most fit, and are not worked on."""
    fits = cell.cell_length <= room and "\n" not in cell.plain
    return [cell] if fits else list(cell.wrap(room))


def column_widths(rows: Sequence[Sequence[Content]], width: int) -> list[int]:
    """Cells for each column: what its longest line wants, the widest giving way first."""
    wanted = [
        max(_LEAST, *(part.cell_length for cell in column for part in cell.split(allow_blank=True)))
        for column in zip(*rows, strict=True)
    ]
    room = width - len(_BETWEEN) * (len(wanted) - 1)
    while sum(wanted) > room and max(wanted) > _LEAST:
        # At once down to the second widest, or by what is missing.
        widest = max(wanted)
        equal = [index for index, cells in enumerate(wanted) if cells == widest]
        below = max([cells for cells in wanted if cells < widest], default=_LEAST)
        step = max(1, min(widest - max(below, _LEAST), -(-(sum(wanted) - room) // len(equal))))
        for index in equal:
            wanted[index] = max(_LEAST, widest - step)
    return wanted


def _placed(cell: Content, room: int, where: str) -> Content:
    if where == "right":
        return cell.pad_left(room - cell.cell_length)
    if where == "center":
        left = (room - cell.cell_length) // 2
        return cell.pad_left(left).pad_right(room - cell.cell_length - left)
    return cell.pad_right(room - cell.cell_length)
