"""Builds single lines of styled text that fit a width in cells."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content

from quantchat.text import one_line

QUIET = "$quiet"

SIDES = ("$side-left", "$side-right")
"""Colours of the left and of the right variant."""


def quiet(text: str) -> Content:
    """Return `text` in the colour for secondary text."""
    return Content.styled(text, QUIET)


def untrusted(text: str, style: str = "") -> Content:
    """Return text from models, files or libraries on one line, without control characters."""
    return Content.styled(one_line(text), style)


GAP = "  "
"""Separates two entries of `hints`."""


def hints(keys: Iterable[tuple[str, str]]) -> Content:
    """Return one line of `keys`, each with what it does."""
    return Content(GAP).join(
        Content.styled(key, "bold $primary") + quiet(f" {what}") for key, what in keys
    )


def spread(left: Content, right: Content, width: int) -> Content:
    """Put `left` and `right` at the two ends of a line; cut `left` if both do not fit."""
    right = right.truncate(width, ellipsis=True)
    room = width - right.cell_length - (1 if right else 0)
    left = left.truncate(room, ellipsis=True) if room > 0 else Content()
    return left + Content(" " * (width - left.cell_length - right.cell_length)) + right


def join_fitting(parts: Iterable[Content], width: int, gap: str = "  ") -> Content:
    """Join `parts` in order, without those that do not fit whole; the first part is cut instead."""
    line = Content()
    for part in parts:
        if not part:
            continue
        if not line:
            line = part.truncate(width, ellipsis=True)
        elif line.cell_length + len(gap) + part.cell_length <= width:
            line = line + quiet(gap) + part
    return line
