"""A terminal as a grid of cells, with one of the methods by which terminals measure text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

from wcwidth import iter_graphemes, wcswidth, wcwidth

from fakes.terminal_controls import Tokens


def _cells(character: str) -> int:
    """Return the cells of `character` by wcwidth's tables; half a flag is 1, as in C libraries."""
    return 1 if "\U0001f1e6" <= character <= "\U0001f1ff" else max(0, wcwidth(character))


def each_by_itself(text: str) -> Iterator[tuple[str, int]]:
    """Yield characters with cells as xterm, tmux and the C library do: vowel signs have one."""
    for character in text:
        spacing = unicodedata.category(character) == "Mc"
        yield character, 1 if spacing else _cells(character)


def joined(text: str) -> Iterator[tuple[str, int]]:
    """Yield graphemes with their cells as terminals with mode 2027 do: one or two."""
    for grapheme in iter_graphemes(text):
        yield grapheme, min(2, max(0, wcswidth(grapheme)))


def no_signs(text: str) -> Iterator[tuple[str, int]]:
    """Yield characters with their cells by the tables alone: vowel signs have none."""
    for character in text:
        yield character, _cells(character)


WAYS: tuple[Callable[[str], Iterator[tuple[str, int]]], ...] = (each_by_itself, joined, no_signs)


class CellTerminal:
    """Draws what Textual writes: text, cursor positions (CUP), DECSC, DECRC and CUF."""

    def __init__(
        self, columns: int, rows: int, way: Callable[[str], Iterator[tuple[str, int]]]
    ) -> None:
        self.rows = [[" "] * columns for _ in range(rows)]
        self._columns = columns
        self._continuation = way
        self._x = self._y = 0
        self._saved = (0, 0)

    @property
    def lines(self) -> list[str]:
        """The text of each row."""
        return ["".join(row) for row in self.rows]

    def feed(self, written: str) -> None:
        """Draw `written`."""
        for token in Tokens().feed(written.encode()):
            if token.kind == "text":
                self._draw(token.raw)
            elif token.raw == "\x1b7":
                self._saved = (self._x, self._y)
            elif token.raw == "\x1b8":
                self._x, self._y = self._saved
            elif place := re.fullmatch(r"\x1b\[(\d+);(\d+)H", token.raw):
                self._y, self._x = int(place[1]) - 1, int(place[2]) - 1
            elif forward := re.fullmatch(r"\x1b\[(\d+)C", token.raw):
                self._x = min(self._columns - 1, self._x + int(forward[1]))

    def _draw(self, text: str) -> None:
        row = self.rows[self._y]
        for shown, cells in self._continuation(text):
            if not cells:  # belongs to what stands before it
                row[max(0, self._x - 1)] += shown
            elif self._x + cells <= self._columns:
                row[self._x] = shown
                row[self._x + 1 : self._x + cells] = [""] * (cells - 1)
                self._x += cells
