"""An answer that grows, as lines: what one more token costs does not depend on how long it is.

Only the last top-level block can still change, so only that is parsed and drawn again. A block
that has grown long (an endless paragraph, two thousand lines of code, a table) is cut: what is
before the cut stays as it is drawn.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from textual.content import Content

from quantchat.app.markdown import COLOURED, Block, blocks, code_lines, coloured_code
from quantchat.text import neutralise

LONG = 800
"""Characters after which a block that still grows is cut."""
DENSE = 300
"""Parts (`Block.parts`) after which it is, too: many short items or lines cost as much as a long
text."""
OPENERS = 4
"""How much longer each `[` makes a block: from each one, the parser looks for the end of a link, so
that many in one block cost a square of time."""
SLICE = 300
"""Most characters that are parsed at once on top of those."""
WHOLE = 16_000
"""Longest answer, in characters, that is parsed once more as a whole when it is over: only so are
marks paired that a cut has parted, and links found whose address came later."""
AT_ONCE_S = 0.015
"""Processor time that is taken at once, in s: what is left waits, and keys come first."""

_FENCE_ENDS = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")

clock = time.thread_time
"""What `AT_ONCE_S` is measured by."""


@dataclass(eq=False)
class _Drawn:
    """Lines that belong together, drawn for one width at a time."""

    draw: Callable[[int], list[Content]]
    size: int
    """Characters that are drawn."""
    glued: bool = False
    """Whether it goes on from the one before, with no blank line between."""
    code: str | None = None
    lines: list[Content] = field(default_factory=list)
    width: int = -1

    def fit(self, width: int) -> None:
        """Draw for `width` cells."""
        if width != self.width:
            self.lines, self.width = self.draw(width), width


@dataclass(frozen=True)
class Job:
    """Work that takes too long for the event loop."""

    compute: Callable[[], Any]
    """To be called in a thread: touches nothing of the answer."""
    adopt: Callable[[Any], None]
    """To be called with the result where the answer is drawn."""


class IncrementalMarkdown:
    """Raw text comes in, neutral lines go out, for the width that `fit` was given last.

    No call takes much longer than `AT_ONCE_S`, whatever was said: while `busy`, there is more to be
    done, by `advance` and by `jobs`.
    """

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
        self._backlog: deque[str] = deque()
        """Raw text that was not parsed yet."""
        self._taken = 0
        """Characters of its first piece that were."""
        self._ends = False
        """Whether nothing comes after the backlog."""
        self._stale: list[_Drawn] = []
        """Drawn for another width; the last one comes first."""
        self.jobs: deque[Job] = deque()

    # ------------------------------------------------------------ lines

    @property
    def height(self) -> int:
        """How many lines there are."""
        return self._tops[-1] + len(self._open)

    @property
    def settled(self) -> int:
        """How many lines will not change any more."""
        return self._tops[-1]

    @property
    def sure(self) -> int:
        """How many lines `advance` will not change."""
        return 0 if self._stale else self.settled

    def fit(self, width: int) -> bool:
        """Draw for `width` cells from now on; whether that is another width than before."""
        if width == self._width:
            return False
        self._width = width
        self._stale = [one for one in self._closed if one.size <= LONG + SLICE]
        self._draw_large([one for one in self._closed if one.size > LONG + SLICE])
        self._draw_tail()
        self.advance()
        return True

    def line(self, number: int) -> Content:
        """Line `number`, from 0. Raises IndexError."""
        if number >= self._tops[-1]:
            return self._open[number - self._tops[-1]]
        at = bisect_right(self._tops, number) - 1
        within = number - self._tops[at]
        drawn = self._closed[at]
        if self._gap(at):
            return drawn.lines[within - 1] if within else Content()
        return drawn.lines[within]

    def _gap(self, at: int) -> int:
        """Blank lines before closed one `at`."""
        return 0 if at == 0 or self._closed[at].glued else 1

    def _measure(self, first: int) -> None:
        """Reckon the tops anew from closed one `first` on."""
        del self._tops[first + 1 :]
        for at in range(first, len(self._closed)):
            self._tops.append(self._tops[-1] + len(self._closed[at].lines) + self._gap(at))

    def _draw_large(self, large: list[_Drawn]) -> None:
        if not large:
            return
        width = self._width

        def adopt(drawn: list[list[Content]]) -> None:
            for one, lines in zip(large, drawn, strict=True):
                if width == self._width:
                    one.lines, one.width = lines, width
            self._measure(0)

        self.jobs.append(Job(lambda: [one.draw(width) for one in large], adopt))

    # ------------------------------------------------------------ growing

    @property
    def busy(self) -> bool:
        """Whether lines are owed that `advance` or a job will give."""
        return bool(self._backlog or self._ends or self._stale or self.jobs)

    @property
    def waits(self) -> bool:
        """Whether `advance` has something to do."""
        return bool(self._backlog or self._ends or self._stale)

    def feed(self, text: str) -> None:
        """Append raw `text`."""
        self._said.append(text)
        self._backlog.append(text)
        self.advance()

    def settle(self, text: str) -> None:
        """Nothing more will come; `text` is the whole answer, raw, whatever was fed before."""
        if len(text) > WHOLE:
            if text != "".join(self._said):
                self._begin_with(text)
            self._ends = True
        else:
            self._backlog.clear()
            self._taken = 0
            width = self._width
            job = Job(lambda: _whole(text, width), self._replace)
            if len(text) <= SLICE and "```" not in text:
                job.adopt(job.compute())
            else:
                self.jobs.append(job)
        self._said = [text]
        self.advance()

    def advance(self) -> None:
        """Do what is owed, for `AT_ONCE_S`."""
        now = clock()
        end, longest, parsed = now + AT_ONCE_S, 0.0, False
        while self._backlog and now + longest <= end:
            began = now
            self._take(self._slice())
            now, parsed = clock(), True
            longest = max(longest, now - began)
        if self._ends and not self._backlog:
            for block in self._unsettled:
                self._close(block, whole=True)
            self._tail, self._opener, self._glued = "", "", False
            self._unsettled, self._ends, parsed = [], False, True
        if parsed:
            self._draw_tail()
        if self._stale:
            while self._stale and clock() <= end:
                self._stale.pop().fit(self._width)
            self._measure(0)

    def finish(self) -> None:
        """Do all that is owed, however long it takes."""
        while self.busy:
            self.advance()
            if self.jobs:
                job = self.jobs.popleft()
                job.adopt(job.compute())

    def _begin_with(self, text: str) -> None:
        self._closed, self._tops, self._stale = [], [0], []
        self._open, self._unsettled = [], []
        self._tail, self._opener, self._glued = "", "", False
        self._backlog, self._taken = deque([text]), 0
        self.jobs.clear()

    def _replace(self, drawn: list[_Drawn]) -> None:
        """Take what the whole answer was drawn as, in place of what came of its pieces."""
        self._begin_with("")
        self._backlog.clear()
        self._closed = drawn
        self._measure(0)
        other = [one for one in drawn if one.width != self._width]
        self._draw_large(other)

    def _slice(self) -> str:
        first = self._backlog[0]
        text = first[self._taken : self._taken + SLICE]
        self._taken += len(text)
        if self._taken >= len(first):
            self._backlog.popleft()
            self._taken = 0
        return text

    def _take(self, text: str) -> None:
        self._tail += neutralise(text)
        found = blocks(self._opener + self._tail)
        if len(found) > 1:
            for block in found[:-1]:
                self._close(block, whole=True)
            lines = (self._opener + self._tail).split("\n")
            self._tail = "\n".join(lines[found[-1].first_line :])
            self._opener, self._glued = "", False
            found = [found[-1]]
        if found and (_weight(self._tail) > LONG or found[-1].parts > DENSE):
            self._cut(found[-1])
            found = blocks(self._opener + self._tail)
        elif len(self._tail) > LONG and not self._opener:
            # Blanks, or definitions of links: nothing is drawn of them, however many come.
            self._tail = self._tail[self._tail.rfind("\n") + 1 or len(self._tail) :]
        self._unsettled = found

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
        size = len(self._tail)
        drawn = _Drawn(lambda width: block.lines(width, headless=glued), size, glued, block.code)
        drawn.fit(self._width)
        self._closed.append(drawn)
        if block.code is not None and whole:
            self._colour(block)
        self._measure(len(self._tops) - 1)

    def _colour(self, end: Block) -> None:
        """Make one of the parts of the code that is whole with `end`, to be coloured by a job."""
        first = len(self._closed) - 1
        while self._closed[first].glued and self._closed[first - 1].code is not None:
            first -= 1
        parts = self._closed[first:]
        code = "".join(part.code or "" for part in parts)
        language = end.language
        if len(code) > COLOURED or not language:
            return
        width = self._width

        def compute() -> tuple[Content, list[Content]]:
            content = coloured_code(code, language)
            return content, code_lines(content, width)

        def adopt(coloured: tuple[Content, list[Content]]) -> None:
            content, lines = coloured
            if not all(part in self._closed for part in parts):
                return  # the whole answer was drawn meanwhile
            at = self._closed.index(parts[0])
            whole = _Drawn(lambda width: code_lines(content, width), len(code), parts[0].glued)
            whole.lines, whole.width = lines, width
            self._closed[at : at + len(parts)] = [whole]
            self._stale = [one for one in self._stale if one not in parts]
            self._measure(at)
            if width != self._width:
                self._draw_large([whole])

        self.jobs.append(Job(compute, adopt))

    # ------------------------------------------------------------ cutting

    def _cut(self, last: Block) -> None:
        """Close the tail up to where the least is seen of the cut."""
        source, opener = self._opener + self._tail, ""
        lines = source.split("\n")
        if last.kind == "fence":
            end = "\n".join(lines[1:]).removesuffix("\n").rpartition("\n")[2]
            if len(end) < LONG and _FENCE_ENDS.fullmatch(end):
                return  # it is over: what comes next closes it
            opener, at = lines[0][:LONG] + "\n", self._tail.rfind("\n") + 1
        elif last.kind == "table_open" and sum(map(len, lines[:2])) < LONG:
            opener, at = "\n".join(lines[:2]) + "\n", self._tail.rfind("\n") + 1
        elif last.kind == "paragraph_open":
            at = self._last_drawn_line(last)
        else:
            at = max((m.end() for m in re.finditer(r"\n(?=\S)", self._tail)), default=0)
        if (
            last.kind == "table_open" and opener and at
        ):  # parsed already, which costs as much as drawing it
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


def _weight(text: str) -> int:
    """How long `text` is for the parser: its characters, and more for what may begin a link."""
    return len(text) + OPENERS * text.count("[")


def _whole(text: str, width: int) -> list[_Drawn]:
    """Draw raw `text`, of which nothing is missing, as a whole."""
    found: list[_Drawn] = []
    for block in blocks(neutralise(text)):
        drawn = _Drawn(block.lines, block.size, code=block.code)
        if block.code is not None and block.language and len(block.code) <= COLOURED:
            drawn.draw = partial(code_lines, coloured_code(block.code, block.language))
        drawn.fit(width)
        found.append(drawn)
    return found
