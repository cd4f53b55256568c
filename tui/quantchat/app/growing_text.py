"""An answer that grows, as lines: what one more token costs does not depend on how long it is.

Only the last top-level block can still change, so only that is parsed and drawn again. A block
that has grown long (an endless paragraph, two thousand lines of code, a table) is cut: what is
before the cut stays as it is drawn.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from textual.content import Content

from quantchat.app.markdown import COLOURED, Block, blocks, code_lines, coloured_code
from quantchat.text import neutralise

LONG = 1200
"""Characters after which a block that still grows is cut."""
WHOLE = 16_000
"""Longest answer, in characters, that is parsed once more as a whole when it is over: only so are
marks paired that a cut has parted, and links found whose address came later."""

_FENCE_ENDS = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")


@dataclass
class _Drawn:
    """Lines that belong together, drawn for one width at a time."""

    draw: Callable[[int], list[Content]]
    glued: bool = False
    """Whether it goes on from the one before, with no blank line between."""
    code: str | None = None
    _lines: list[Content] = field(default_factory=list)
    _width: int = -1

    def lines(self, width: int) -> list[Content]:
        if width != self._width:
            self._lines, self._width = self.draw(width), width
        return self._lines


class GrowingText:
    """Raw text comes in, neutral lines go out, for the width that `fit` was given last."""

    def __init__(self) -> None:
        self._width = 80
        self._closed: list[_Drawn] = []
        self._tops: list[int] = [0]
        """First line of each closed one, and at the end that of the tail."""
        self._open: list[Content] = []
        """Lines of the tail."""
        self._unsettled: list[Block] = []
        """The tail's blocks: one, but right after a cut."""
        self._said: list[str] = []
        self._tail = ""
        self._opener = ""
        """What the tail needs before it to mean what it means: a fence's or a table's head."""
        self._glued = False

    # ------------------------------------------------------------ lines

    @property
    def height(self) -> int:
        """How many lines there are."""
        return self._tops[-1] + len(self._open)

    @property
    def settled(self) -> int:
        """How many lines will not change any more."""
        return self._tops[-1]

    def fit(self, width: int) -> bool:
        """Draw for `width` cells from now on; whether that is another width than before."""
        if width == self._width:
            return False
        self._width = width
        self._measure(0)
        self._draw_tail()
        return True

    def line(self, number: int) -> Content:
        """Line `number`, from 0. Raises IndexError."""
        if number >= self._tops[-1]:
            return self._open[number - self._tops[-1]]
        at = bisect_right(self._tops, number) - 1
        within = number - self._tops[at]
        lines = self._lines_of(at)
        return lines[within]

    def _lines_of(self, at: int) -> list[Content]:
        drawn = self._closed[at]
        lines = drawn.lines(self._width)
        return lines if at == 0 or drawn.glued else [Content(), *lines]

    def _measure(self, first: int) -> None:
        """Reckon the tops anew from closed one `first` on."""
        del self._tops[first + 1 :]
        for drawn in self._closed[first:]:
            gap = 1 if len(self._tops) > 1 and not drawn.glued else 0
            self._tops.append(self._tops[-1] + len(drawn.lines(self._width)) + gap)

    # ------------------------------------------------------------ growing

    def feed(self, text: str) -> None:
        """Append raw `text`."""
        self._said.append(text)
        self._tail += neutralise(text)
        found = blocks(self._opener + self._tail)
        if len(found) > 1:
            for block in found[:-1]:
                self._close(block, whole=True)
            lines = (self._opener + self._tail).split("\n")
            self._tail = "\n".join(lines[found[-1].first_line :])
            self._opener, self._glued = "", False
            found = [found[-1]]
        if len(self._tail) > LONG and found:
            self._cut(found[-1])
            found = blocks(self._opener + self._tail)
        self._unsettled = found
        self._draw_tail()

    def settle(self, text: str) -> None:
        """Nothing more will come; `text` is the whole answer, raw, whatever was fed before."""
        if len(text) <= WHOLE or text != "".join(self._said):
            self._closed, self._tops = [], [0]
            self._tail, self._opener, self._glued = neutralise(text), "", False
        for block in blocks(self._opener + self._tail):
            self._close(block, whole=True)
        self._tail, self._opener, self._glued = "", "", False
        self._open, self._unsettled, self._said = [], [], [text]

    def _draw_tail(self) -> None:
        self._open = []
        for number, block in enumerate(self._unsettled):
            glued = self._glued and number == 0
            lines = block.lines(self._width, headless=glued)
            gap = [] if glued or not (self._closed or self._open) else [Content()]
            self._open += [*gap, *lines]

    def _close(self, block: Block, *, whole: bool) -> None:
        """Draw `block`, the first of the tail, for good; `whole` unless it is cut off there."""
        glued, self._glued = self._glued, not whole
        self._closed.append(_Drawn(lambda width: block.lines(width, headless=glued), glued))
        if block.code is not None:
            self._closed[-1].code = block.code
            if whole:
                self._colour(block)
        self._measure(len(self._tops) - 1)

    def _colour(self, end: Block) -> None:
        """Make one of the parts of the code that is whole with `end`, and colour it."""
        first = len(self._closed) - 1
        while self._closed[first].glued and self._closed[first - 1].code is not None:
            first -= 1
        code = "".join(drawn.code or "" for drawn in self._closed[first:])
        if len(code) > COLOURED:
            return
        content = coloured_code(code, end.tokens[0].info)
        glued = self._closed[first].glued
        del self._closed[first:], self._tops[first + 1 :]
        self._closed.append(_Drawn(lambda width: code_lines(content, width), glued))

    # ------------------------------------------------------------ cutting

    def _cut(self, last: Block) -> None:
        """Close the tail up to where the least is seen of the cut."""
        source, opener = self._opener + self._tail, ""
        lines = source.split("\n")
        if last.kind == "fence":
            if _FENCE_ENDS.fullmatch(lines[-1] or lines[-2]):
                return  # it is over: what comes next closes it
            opener, at = lines[0] + "\n", self._tail.rfind("\n") + 1
        elif last.kind == "table_open":
            opener, at = "\n".join(lines[:2]) + "\n", self._tail.rfind("\n") + 1
        elif last.kind == "paragraph_open":
            at = self._last_drawn_line(last)
        else:
            at = max((m.end() for m in re.finditer(r"\n(?=\S)", self._tail)), default=0)
        if last.kind == "table_open" and at:  # parsed already, which costs as much as drawing it
            self._close(
                last.rows_before(source.count("\n", 0, len(self._opener) + at)), whole=False
            )
        else:
            at = at if 0 < at < len(self._tail) else self._tail.rfind(" ") + 1 or len(self._tail)
            for block in blocks(self._opener + self._tail[:at]):
                self._close(block, whole=False)
        self._tail, self._opener, self._glued = self._tail[at:], opener, True

    def _last_drawn_line(self, paragraph: Block) -> int:
        """Where in the tail the last line begins that is drawn of it, if that can be told."""
        text = paragraph.lines(self._width)[-1].plain
        return len(self._tail) - len(text) if self._tail.endswith(text) else 0
