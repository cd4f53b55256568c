"""Draws a streamed text as it is, line by line; the cost of a token does not grow with the text."""

from __future__ import annotations

import re
from collections import deque

from rich.cells import cell_len
from textual.content import Content

from quantchat.app.cell_widths import chop_cells
from quantchat.app.incremental_markdown import Job
from quantchat.text import neutralise

_WORDS = re.compile(r"[^ ]+ *| +")


class PlainText:
    """Draws a text without rendering Markdown; has the interface of `IncrementalMarkdown`.

    No character of the text is left out. Long lines are wrapped at words.
    """

    def __init__(self) -> None:
        self._width = 80
        self._lines: list[str] = [""]
        """The lines of the text; only the last one still grows."""
        self._drawn: list[Content] = []
        self._final_height = 0
        """The number of drawn lines that belong to finished lines of the text."""
        self.jobs: deque[Job] = deque()
        """Always empty: nothing here takes long."""

    @property
    def height(self) -> int:
        """The number of drawn lines."""
        return len(self._drawn)

    @property
    def final_height(self) -> int:
        """The number of drawn lines, from the top, that will not change."""
        return self._final_height

    # Nothing is ever left to draw, neither for `advance` nor for a background job.
    unchanged_by_advance = final_height
    busy = has_backlog = False

    def advance(self) -> None:
        """Do nothing: `feed` has drawn everything."""

    def fit(self, width: int) -> bool:
        """Draw for `width` cells from now on; return whether the width changed."""
        if width == self._width:
            return False
        self._width = width
        self._draw(0)
        return True

    def line(self, number: int) -> Content:
        """Return drawn line `number`, counted from 0. Raises IndexError."""
        return self._drawn[number]

    def feed(self, text: str) -> None:
        """Append `text`, which may contain control characters."""
        first = len(self._lines) - 1
        begun, *more = neutralise(text).split("\n")
        self._lines[-1] += begun
        self._lines += more
        self._draw(first)

    def complete_with(self, text: str) -> None:
        """Set the complete `text`, whatever was fed before."""
        self._lines = neutralise(text).split("\n")
        self._draw(0)

    def _draw(self, first: int) -> None:
        """Draw the lines of the text from `first` on; earlier lines are drawn already."""
        del self._drawn[self._final_height if first else 0 :]
        for number in range(first, len(self._lines)):
            self._final_height = len(self._drawn)
            self._drawn += self._parts(self._lines[number])
        if self._lines == [""]:
            self._drawn = []

    def _parts(self, line: str) -> list[Content]:
        expanded = line.expandtabs(4)
        if cell_len(expanded) <= self._width:
            return [Content(expanded)]
        return [Content(part) for part in _wrapped(expanded, self._width)]


def _wrapped(line: str, width: int) -> list[str]:
    """Return `line` in parts of at most `width` cells; cut after blanks where there are some."""
    parts, room = [""], width
    for word in _WORDS.findall(line):
        cells = cell_len(word.rstrip(" "))
        if cells > room and parts[-1]:
            parts.append("")
            room = width
        *whole, last = chop_cells(word.rstrip(" "), width) if cells > room else [word]
        parts[-1:] = [parts[-1] + part for part in whole] + [last if whole else parts[-1] + last]
        room = width - cell_len(parts[-1])
    return [part.rstrip(" ") if cell_len(part) > width else part for part in parts]
