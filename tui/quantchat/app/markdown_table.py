"""Draws Markdown tables as lines, with columns as wide as needed or as the space allows."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

_QUIET = "$quiet"
_SEPARATOR = " │ "
_MIN_WIDTH = 3
"""Smallest width of a column, in cells."""
_UNCUT_LENGTH = 9
"""Words up to this length must fit into their column whole; longer words may be cut."""
_RULE_WIDTH = 12
"""Width, in cells, of the line between two records (see `table_lines`)."""


def table_lines(
    rows: Sequence[Sequence[Content]], aligned: Sequence[str], width: int, headless: bool = False
) -> list[Content]:
    """Draw `rows`, the first of which is the head, in `width` cells.

    `aligned` is the alignment of each column: `left`, `right` or `center`. `headless` omits the
    head, to continue a table. If a column is too narrow for its words, each row is drawn as a
    record: a line for each cell.
    """
    columns = len(rows[0])
    rows = [[*row[:columns], *[Content()] * (columns - len(row))] for row in rows]
    widths = column_widths(rows, width)
    if _illegible(rows, widths, width):
        return _records(rows, width, headless)
    between = Content.styled(_SEPARATOR, _QUIET)
    lines: list[Content] = []
    for number, row in enumerate(rows):
        if number == 0 and headless:
            continue
        cells = [_wrapped(cell, room) for cell, room in zip(row, widths, strict=True)]
        for line in range(max(map(len, cells))):
            parts = [
                _aligned(cell[line] if line < len(cell) else Content(), room, where)
                for cell, room, where in zip(cells, widths, aligned, strict=True)
            ]
            whole = between.join(parts)
            lines.append(whole.stylize("bold $primary") if number == 0 else whole)
        if number == 0:
            lines.append(Content.styled("─┼─".join("─" * room for room in widths), _QUIET))
    return [line.truncate(width) for line in lines]


def _illegible(rows: Sequence[Sequence[Content]], widths: Sequence[int], width: int) -> bool:
    """Return whether a column is narrower than its words, or the columns wider than the table."""
    if sum(widths) + len(_SEPARATOR) * (len(widths) - 1) > width:
        return True
    words = [
        max((len(word) for cell in column for word in cell.plain.split()), default=0)
        for column in zip(*rows, strict=True)
    ]
    return any(room < min(word, _UNCUT_LENGTH) for room, word in zip(widths, words, strict=True))


def _records(
    rows: Sequence[Sequence[Content]], width: int, headless: bool = False
) -> list[Content]:
    """Draw each row as a record: the column's name and the cell, with a rule between records."""
    head, *records = rows
    rule = Content.styled("─" * min(width, _RULE_WIDTH), _QUIET)
    lines: list[Content] = []
    for number, record in enumerate(records):
        if number or headless:
            lines.append(rule)
        for name, cell in zip(head, record, strict=True):
            line = name.stylize("bold $primary") + (": " if name.plain else "") + cell
            lines += line.wrap(width)
    return lines or [
        line.stylize("bold $primary") for line in Content(" · ").join(head).wrap(width)
    ]


def _wrapped(cell: Content, room: int) -> list[Content]:
    """Wrap `cell` to lines of `room` cells; most cells fit and are returned unchanged."""
    fits = cell.cell_length <= room and "\n" not in cell.plain
    return [cell] if fits else list(cell.wrap(room))


def column_widths(rows: Sequence[Sequence[Content]], width: int) -> list[int]:
    """Return the width of each column in cells: that of its longest line.

    If their sum exceeds `width`, the widest columns shrink first.
    """
    widths = [
        max(
            _MIN_WIDTH,
            *(part.cell_length for cell in column for part in cell.split(allow_blank=True)),
        )
        for column in zip(*rows, strict=True)
    ]
    room = width - len(_SEPARATOR) * (len(widths) - 1)
    while sum(widths) > room and max(widths) > _MIN_WIDTH:
        # In one step, shrink the widest columns to the width of the second widest, or by fewer
        # cells if that is enough.
        widest = max(widths)
        equal = [index for index, cells in enumerate(widths) if cells == widest]
        below = max([cells for cells in widths if cells < widest], default=_MIN_WIDTH)
        step = max(1, min(widest - max(below, _MIN_WIDTH), -(-(sum(widths) - room) // len(equal))))
        for index in equal:
            widths[index] = max(_MIN_WIDTH, widest - step)
    return widths


def _aligned(cell: Content, room: int, where: str) -> Content:
    if where == "right":
        return cell.pad_left(room - cell.cell_length)
    if where == "center":
        left = (room - cell.cell_length) // 2
        return cell.pad_left(left).pad_right(room - cell.cell_length - left)
    return cell.pad_right(room - cell.cell_length)
