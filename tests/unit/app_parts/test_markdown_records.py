"""A table that is too wide for a narrow column is drawn as records."""

from __future__ import annotations

from quantchat.app.markdown import blocks

TABLE = """\
| quantity | description | remarks |
|---|---|---|
| throughput | tokens decoded in a second | measured one at a time |
| memory | resident bytes | of the process |
"""


def drawn(width: int) -> list[str]:
    return [line.plain for block in blocks(TABLE) for line in block.lines(width)]


def test_a_wide_terminal_shows_a_table() -> None:
    assert drawn(90)[0].split() == ["quantity", "│", "description", "│", "remarks"]


def test_a_narrow_column_shows_records() -> None:
    assert [line.rstrip() for line in drawn(24)] == [
        "quantity: throughput",
        "description: tokens",
        "decoded in a second",
        "remarks: measured one at",
        "a time",
        "────────────",
        "quantity: memory",
        "description: resident",
        "bytes",
        "remarks: of the process",
    ]


def test_no_line_is_wider_than_the_column() -> None:
    for width in range(8, 60):
        assert all(len(line.rstrip()) <= width for line in drawn(width))
