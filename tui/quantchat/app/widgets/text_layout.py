"""Single lines of styled text, fitted to a width in cells."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content

from quantchat.text import one_line

QUIET = "$quiet"

SIDES = ("$side-left", "$side-right")
"""Colours of the left and of the right variant."""

ORDERS = {"together": "together", "in-turn": "in turn"}
"""What is said of an answer's order."""


def quiet(text: str) -> Content:
    """Text that stands back."""
    return Content.styled(text, QUIET)


def outside(text: str, style: str = "") -> Content:
    """Text from outside, neutral and on one line."""
    return Content.styled(one_line(text), style)


GAP = "  "
"""Between two `hints`."""


def hints(keys: Iterable[tuple[str, str]]) -> Content:
    """Keys with what each does."""
    return Content(GAP).join(
        Content.styled(key, "bold $primary") + quiet(f" {what}") for key, what in keys
    )


def spread(left: Content, right: Content, width: int) -> Content:
    """`left` and `right` at the two ends of a line; `left` gives way, with an ellipsis."""
    right = right.truncate(width, ellipsis=True)
    room = width - right.cell_length - (1 if right else 0)
    left = left.truncate(room, ellipsis=True) if room > 0 else Content()
    return left + Content(" " * (width - left.cell_length - right.cell_length)) + right


def fitted(parts: Iterable[Content], width: int, gap: str = "  ") -> Content:
    """As many of `parts`, from the first on, as fit whole; the first is cut if it must be."""
    line = Content()
    for part in parts:
        if not part:
            continue
        if not line:
            line = part.truncate(width, ellipsis=True)
        elif line.cell_length + len(gap) + part.cell_length <= width:
            line = line + quiet(gap) + part
    return line
