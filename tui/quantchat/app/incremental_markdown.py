"""Draws a streamed Markdown answer as lines; the cost of a token does not grow with the answer.

Only the last top-level block can still change, so only that block ("the tail") is parsed and drawn
again when text arrives. If a block becomes long (an endless paragraph, two thousand lines of code,
a table), it is cut: the part before the cut is drawn for the last time and no longer belongs to
the tail.
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

from quantchat.app.markdown import MAX_COLOURED, Block, blocks, code_lines, coloured_code
from quantchat.text import neutralise

CUT_AFTER_CHARACTERS = 800
"""Characters after which a growing block is cut."""
CUT_AFTER_PARTS = 300
"""Parts (`Block.parts`) after which a growing block is cut: many short items or lines cost as much
as a long text."""
BRACKET_WEIGHT = 4
"""Each `[` counts as this many more characters: the parser looks for the end of a link from each
`[`, so its time grows with the square of their number in a block."""
SLICE_CHARACTERS = 300
"""Most new characters that are parsed in one step."""
MAX_REPARSED = 16_000
"""Longest answer, in characters, that is parsed again as a whole when it is complete. Only a parse
of the whole text finds emphasis that began before a cut and ended after it, and the address of a
link if it is defined further below."""
STEP_S = 0.015
"""Processor time in s after which a step ends, so that keys are handled before the next step."""

_FENCE_ENDS = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")

clock = time.thread_time
"""The clock that measures `STEP_S`."""


@dataclass(eq=False)
class _DrawnBlock:
    """A finished block, or a finished part of one, drawn for one width at a time."""

    draw: Callable[[int], list[Content]]
    size: int
    """Number of characters."""
    continues: bool = False
    """Whether this part continues the previous one, without a blank line in between."""
    code: str | None = None
    """The code, if this is a code block."""
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
    """Called in a thread; does not touch the `IncrementalMarkdown`."""
    adopt: Callable[[Any], None]
    """Called on the event loop with the result of `compute`."""


class IncrementalMarkdown:
    """Turns raw text into drawn lines without control characters, for the width given to `fit`.

    No call except `finish` takes much longer than `STEP_S`, whatever the text is. While `busy`, the
    caller must call `advance` again and run the `jobs`.
    """

    def __init__(self) -> None:
        self._width = 80
        self._closed: list[_DrawnBlock] = []
        """The closed parts: finished blocks, and the parts of long blocks before a cut."""
        self._first_lines: list[int] = [0]
        """Number of the first line of each closed part; the last item is that of the tail."""
        self._open: list[Content] = []
        """Lines of the tail."""
        self._tail_blocks: list[Block] = []
        """The tail's blocks: one, or several right after a cut."""
        self._fed: list[str] = []
        """All raw text so far."""
        self._tail = ""
        """The source text of the tail, without control characters."""
        self._opener = ""
        """Text to parse before the tail after a cut: the start of its code fence or table."""
        self._continues = False
        """Whether the tail continues a block that was cut."""
        self._backlog: deque[str] = deque()
        """Raw text that is not parsed yet."""
        self._parsed = 0
        """Characters of the backlog's first piece that are parsed."""
        self._complete = False
        """Whether nothing comes after the backlog."""
        self._stale: list[_DrawnBlock] = []
        """Parts still drawn for another width; the last one is redrawn first."""
        self.jobs: deque[Job] = deque()
        """Work to be done outside the event loop."""

    # ------------------------------------------------------------ lines

    @property
    def height(self) -> int:
        """The number of lines."""
        return self._first_lines[-1] + len(self._open)

    @property
    def final_height(self) -> int:
        """The number of lines above the tail, which more text will not change."""
        return self._first_lines[-1]

    @property
    def unchanged_by_advance(self) -> int:
        """The number of lines, from the top, that the next `advance` will not change."""
        return 0 if self._stale else self.final_height

    def fit(self, width: int) -> bool:
        """Draw for `width` cells from now on; return whether the width changed."""
        if width == self._width:
            return False
        self._width = width
        self._stale = [
            one for one in self._closed if one.size <= CUT_AFTER_CHARACTERS + SLICE_CHARACTERS
        ]
        self._draw_large(
            [one for one in self._closed if one.size > CUT_AFTER_CHARACTERS + SLICE_CHARACTERS]
        )
        self._draw_tail()
        self.advance()
        return True

    def line(self, number: int) -> Content:
        """Return line `number`, counted from 0. Raises IndexError."""
        if number >= self._first_lines[-1]:
            return self._open[number - self._first_lines[-1]]
        at = bisect_right(self._first_lines, number) - 1
        within = number - self._first_lines[at]
        drawn = self._closed[at]
        if self._gap(at):
            return drawn.lines[within - 1] if within else Content()
        return drawn.lines[within]

    def _gap(self, at: int) -> int:
        """Return the number of blank lines before the closed part `at`."""
        return 0 if at == 0 or self._closed[at].continues else 1

    def _measure(self, first: int) -> None:
        """Recompute the first line numbers from the closed part `first` on."""
        del self._first_lines[first + 1 :]
        for at in range(first, len(self._closed)):
            self._first_lines.append(
                self._first_lines[-1] + len(self._closed[at].lines) + self._gap(at)
            )

    def _draw_large(self, large: list[_DrawnBlock]) -> None:
        if not large:
            return
        width = self._width

        def adopt(drawn: list[list[Content]]) -> None:
            for one, lines in zip(large, drawn, strict=True):
                if width == self._width:
                    one.lines, one.width = lines, width
            self._measure(0)

        self.jobs.append(Job(lambda: [one.draw(width) for one in large], adopt))

    # ------------------------------------------------------------ adding text

    @property
    def busy(self) -> bool:
        """Whether `advance` or a job has something left to draw."""
        return self.has_backlog or bool(self.jobs)

    @property
    def has_backlog(self) -> bool:
        """Whether `advance` has something left to draw."""
        return bool(self._backlog or self._complete or self._stale)

    def feed(self, text: str) -> None:
        """Append raw `text`."""
        self._fed.append(text)
        self._backlog.append(text)
        self.advance()

    def complete_with(self, text: str) -> None:
        """Set the complete raw answer `text`, whatever was fed before; nothing may follow."""
        if len(text) > MAX_REPARSED:
            if text != "".join(self._fed):
                self._restart(text)
            self._complete = True
        else:
            self._backlog.clear()
            self._parsed = 0
            width = self._width
            job = Job(lambda: _whole(text, width), self._replace)
            if len(text) <= SLICE_CHARACTERS and "```" not in text:
                job.adopt(job.compute())
            else:
                self.jobs.append(job)
        self._fed = [text]
        self.advance()

    def advance(self) -> None:
        """Parse and draw the backlog for at most about `STEP_S`."""
        now = clock()
        end, longest, parsed = now + STEP_S, 0.0, False
        while self._backlog and now + longest <= end:
            began = now
            self._parse(self._slice())
            now, parsed = clock(), True
            longest = max(longest, now - began)
        if self._complete and not self._backlog:
            for block in self._tail_blocks:
                self._close(block, whole=True)
            self._tail, self._opener, self._continues = "", "", False
            self._tail_blocks, self._complete, parsed = [], False, True
        if parsed:
            self._draw_tail()
        if self._stale:
            while self._stale and clock() <= end:
                self._stale.pop().fit(self._width)
            self._measure(0)

    def finish(self) -> None:
        """Draw everything now, however long it takes."""
        while self.busy:
            self.advance()
            if self.jobs:
                job = self.jobs.popleft()
                job.adopt(job.compute())

    def _restart(self, text: str) -> None:
        self._closed, self._first_lines, self._stale = [], [0], []
        self._open, self._tail_blocks = [], []
        self._tail, self._opener, self._continues = "", "", False
        self._backlog, self._parsed = deque([text]), 0
        self.jobs.clear()

    def _replace(self, drawn: list[_DrawnBlock]) -> None:
        """Replace what was drawn piece by piece with the answer drawn as a whole."""
        self._restart("")
        self._backlog.clear()
        self._closed = drawn
        self._measure(0)
        other = [one for one in drawn if one.width != self._width]
        self._draw_large(other)

    def _slice(self) -> str:
        first = self._backlog[0]
        text = first[self._parsed : self._parsed + SLICE_CHARACTERS]
        self._parsed += len(text)
        if self._parsed >= len(first):
            self._backlog.popleft()
            self._parsed = 0
        return text

    def _parse(self, text: str) -> None:
        self._tail += neutralise(text)
        found = blocks(self._opener + self._tail)
        if len(found) > 1:
            for block in found[:-1]:
                self._close(block, whole=True)
            lines = (self._opener + self._tail).split("\n")
            self._tail = "\n".join(lines[found[-1].first_line :])
            self._opener, self._continues = "", False
            found = [found[-1]]
        if found and (
            _weight(self._tail) > CUT_AFTER_CHARACTERS or found[-1].parts > CUT_AFTER_PARTS
        ):
            self._cut(found[-1])
            found = blocks(self._opener + self._tail)
        elif len(self._tail) > CUT_AFTER_CHARACTERS and not self._opener:
            # Blank lines or link definitions: they draw nothing, so drop them.
            self._tail = self._tail[self._tail.rfind("\n") + 1 or len(self._tail) :]
        self._tail_blocks = found

    def _draw_tail(self) -> None:
        self._open = []
        for number, block in enumerate(self._tail_blocks):
            continues = self._continues and number == 0
            lines = block.lines(self._width, headless=continues)
            gap = [] if continues or not (self._closed or self._open) else [Content()]
            self._open += [*gap, *lines]

    def _close(self, block: Block, *, whole: bool) -> None:
        """Draw `block`, the first of the tail, for the last time and move it to the closed parts.

        `whole` is False if only this part of the block ends here, because the block is cut.
        """
        continues, self._continues = self._continues, not whole
        size = len(self._tail)
        drawn = _DrawnBlock(
            lambda width: block.lines(width, headless=continues), size, continues, block.code
        )
        drawn.fit(self._width)
        self._closed.append(drawn)
        if block.code is not None and whole:
            self._colour(block)
        self._measure(len(self._first_lines) - 1)

    def _colour(self, end: Block) -> None:
        """Add a job that joins the parts of the code block ending with `end` and colours it."""
        first = len(self._closed) - 1
        while self._closed[first].continues and self._closed[first - 1].code is not None:
            first -= 1
        parts = self._closed[first:]
        code = "".join(part.code or "" for part in parts)
        language = end.language
        if len(code) > MAX_COLOURED or not language:
            return
        width = self._width

        def compute() -> tuple[Content, list[Content]]:
            content = coloured_code(code, language)
            return content, code_lines(content, width)

        def adopt(coloured: tuple[Content, list[Content]]) -> None:
            content, lines = coloured
            if not all(part in self._closed for part in parts):
                return  # the answer was redrawn as a whole meanwhile
            at = self._closed.index(parts[0])
            whole = _DrawnBlock(
                lambda width: code_lines(content, width), len(code), parts[0].continues
            )
            whole.lines, whole.width = lines, width
            self._closed[at : at + len(parts)] = [whole]
            self._stale = [one for one in self._stale if one not in parts]
            self._measure(at)
            if width != self._width:
                self._draw_large([whole])

        self.jobs.append(Job(compute, adopt))

    # ------------------------------------------------------------ cutting

    def _cut(self, last: Block) -> None:
        """Close the tail up to the place where a cut is least visible."""
        source, opener = self._opener + self._tail, ""
        lines = source.split("\n")
        if last.kind == "fence":
            end = "\n".join(lines[1:]).removesuffix("\n").rpartition("\n")[2]
            if len(end) < CUT_AFTER_CHARACTERS and _FENCE_ENDS.fullmatch(end):
                return  # the code block has ended: the next block closes it
            opener, at = lines[0][:CUT_AFTER_CHARACTERS] + "\n", self._tail.rfind("\n") + 1
        elif last.kind == "table_open" and sum(map(len, lines[:2])) < CUT_AFTER_CHARACTERS:
            opener, at = "\n".join(lines[:2]) + "\n", self._tail.rfind("\n") + 1
        elif last.kind == "paragraph_open":
            at = self._last_drawn_line(last)
        else:
            at = max((m.end() for m in re.finditer(r"\n(?=\S)", self._tail)), default=0)
        if last.kind == "table_open" and opener and at:
            # Reuse the parsed rows: parsing a table again costs as much as drawing it.
            self._close(
                last.rows_before(source.count("\n", 0, len(self._opener) + at)), whole=False
            )
        else:
            at = at if 0 < at < len(self._tail) else self._tail.rfind(" ") + 1 or len(self._tail)
            for block in blocks(self._opener + self._tail[:at]):
                self._close(block, whole=False)
        self._tail, self._opener, self._continues = self._tail[at:], opener, True

    def _last_drawn_line(self, paragraph: Block) -> int:
        """Return where in the tail the last drawn line starts; 0 if that cannot be found."""
        text = paragraph.lines(self._width)[-1].plain
        return len(self._tail) - len(text) if self._tail.endswith(text) else 0


def _weight(text: str) -> int:
    """Return the parsing cost of `text` in characters, with extra for each possible link."""
    return len(text) + BRACKET_WEIGHT * text.count("[")


def _whole(text: str, width: int) -> list[_DrawnBlock]:
    """Draw the complete raw `text` as a whole."""
    found: list[_DrawnBlock] = []
    for block in blocks(neutralise(text)):
        drawn = _DrawnBlock(block.lines, block.size, code=block.code)
        if block.code is not None and block.language and len(block.code) <= MAX_COLOURED:
            drawn.draw = partial(code_lines, coloured_code(block.code, block.language))
        drawn.fit(width)
        found.append(drawn)
    return found
