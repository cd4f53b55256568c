"""One answer on the screen: a single widget, however long the answer is."""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual
from textual.widget import Widget

from quantchat.app.incremental_markdown import IncrementalMarkdown
from quantchat.app.messages import LinkClicked
from quantchat.app.plain_text import PlainText
from quantchat.app.widgets.blank_fill import with_line_filters
from quantchat.app.widgets.divergence_mark import DivergenceMark
from quantchat.daemon_thread import to_daemon_thread

_MAX_CACHED_LINES = 400
"""Most drawn lines that are cached: the visible ones and some around them."""
PAUSE_S = 0.02
"""Pause for keys and frames, in s, between two steps of drawing a long answer."""


class AnswerView(Widget):
    """Draws an answer while it streams; `complete_with` draws the complete answer."""

    DEFAULT_CSS = """
    AnswerView { height: auto; width: 1fr; }
    """
    INDENT = 2
    """Cells of indent, drawn as part of each line: CSS padding would bypass the line cache."""

    def __init__(
        self, mark: DivergenceMark | None = None, *, step: int = 1, raw: bool = False
    ) -> None:
        """Draw `mark` into the text, and grow by `step` lines at a time while streaming.

        With `raw`, draw the text as it is, not as Markdown.

        A larger `step` sends less to the terminal: whenever the widget grows, its text scrolls, and
        then all visible lines are sent again.
        """
        super().__init__()
        self._text: IncrementalMarkdown | PlainText = PlainText() if raw else IncrementalMarkdown()
        self._mark = mark
        self._step = step
        self._streaming = True
        self._strips: dict[int, Strip] = {}
        self._drawing = False
        """Whether `_draw_backlog` runs."""

    @property
    def busy(self) -> bool:
        """Whether text that has arrived is not drawn yet."""
        return self._text.busy

    # ------------------------------------------------------------ adding text

    def write(self, text: str) -> None:
        """Append `text`, which may contain control characters."""
        if not text:
            return
        final_height, height = self._text.final_height, self._drawn_height
        self._text.feed(text)
        self._changed_from(final_height, height)
        self._continue()

    def complete_with(self, text: str) -> None:
        """Draw the complete `text` of the answer. Nothing may be written afterwards."""
        height, self._streaming = self._drawn_height, False
        self._text.complete_with(text)
        self._changed_from(0, height)
        self._continue()

    def _continue(self) -> None:
        if self._text.busy and not self._drawing:
            self._drawing = True
            self.run_worker(self._draw_backlog())

    async def _draw_backlog(self) -> None:
        """Draw the text that is not drawn yet, in short steps, so that no key has to wait.

        Short pieces are drawn here (`advance`). What would block the event loop, such as a large
        block or the colours of code, is computed in a thread (a job) once the pieces are drawn.
        """
        try:
            while self._text.busy:
                if self._text.has_backlog:
                    await asyncio.sleep(PAUSE_S)
                    first, height = self._text.unchanged_by_advance, self._drawn_height
                    self._text.advance()
                else:
                    job = self._text.jobs[0]
                    result = await to_daemon_thread(job.compute)
                    first, height = 0, self._drawn_height  # a job may redraw any line
                    if self._text.jobs and self._text.jobs[0] is job:
                        self._text.jobs.popleft()
                        job.adopt(result)
                self._changed_from(first, height)
        finally:
            self._drawing = False

    def _changed_from(self, first: int, height: int) -> None:
        if self._mark is not None:
            self._mark.moved(first)
        for number in [number for number in self._strips if number >= first]:
            del self._strips[number]
        if self._drawn_height != height:
            self.refresh(layout=True)
        else:
            self.refresh(Region(0, first, self.size.width, max(1, height - first)))

    # ------------------------------------------------------------ lines

    @property
    def _drawn_height(self) -> int:
        height = self._text.height
        return -(-height // self._step) * self._step if self._streaming else height

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the number of lines of the text at `width`."""
        del container, viewport
        if self._text.fit(max(1, width - self.INDENT)):
            self._strips.clear()
            if self._mark is not None:
                self._mark.moved(0)
            self._continue()
        return self._drawn_height

    def notify_style_update(self) -> None:
        """Drop the cached lines: the theme changed."""
        super().notify_style_update()
        self._strips.clear()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return the lines within `crop`; this widget has no border or padding to add."""
        if not self.is_attached:
            return super().render_lines(crop)
        lines = [self.render_line(y) for y in crop.line_range]
        if (crop.x, crop.width) == (0, self.size.width):
            return lines
        return [line.crop(crop.x, crop.right) for line in lines]

    def render_line(self, y: int) -> Strip:
        """Return line `y` of the text, from the cache if it was drawn before."""
        if y not in self._strips:
            if len(self._strips) >= _MAX_CACHED_LINES:
                self._strips.clear()
            self._strips[y] = with_line_filters(self, self._draw(y))
        return self._strips[y]

    def _draw(self, y: int) -> Strip:
        width = self.size.width
        if y >= self._text.height:
            return Strip.blank(width, self.rich_style)
        line = self._text.line(y)
        if self._mark is not None:
            line = self._mark.draw(self._text, y, line)
        line = line.pad_left(self.INDENT)
        line = line.pad_right(max(0, width - line.cell_length))
        selection = self.text_selection
        span = selection.get_span(y) if selection is not None else None
        if span is not None:
            start, end = span
            style = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            line = line.stylize(style, start, len(line.plain) if end == -1 else end)
        strips = Visual.to_strips(self, line, width, 1, self.visual_style, apply_selection=False)
        strip = Strip(strips[0] if strips else ())
        # Textual does not draw a strip whose width differs from the widget's.
        return strip.adjust_cell_length(width, self.rich_style).apply_offsets(0, y)

    # ------------------------------------------------------------ the mark

    def show_mark(self) -> None:
        """Redraw the line with the mark, once its place is known."""
        place = self._mark.place(self._text) if self._mark is not None else None
        if place is not None:
            self._strips.pop(place.line, None)
            self.refresh(Region(0, place.line, self.size.width, 1))

    @property
    def marked_line(self) -> int:
        """Number of the marked line.

        If no line is marked, because the answer diverges by ending before the other, this is the
        number of lines in the text.
        """
        place = self._mark.place(self._text) if self._mark is not None else None
        return place.line if place is not None else self._text.height

    # ------------------------------------------------------------ selecting and links

    def line_of(self, text: str) -> int | None:
        """Return the number of the first line that contains `text`, ignoring case, or None."""
        wanted = text.casefold()
        lines = (self._text.line(number).plain.casefold() for number in range(self._text.height))
        return next((number for number, line in enumerate(lines) if wanted in line), None)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Return the selected text as it is drawn."""
        lines = [self._text.line(y).pad_left(self.INDENT).plain for y in range(self._text.height)]
        return selection.extract("\n".join(line.rstrip() for line in lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Redraw with the new selection."""
        del selection
        self._strips.clear()
        self.refresh()

    def action_link(self, href: str) -> None:
        """Report that the user clicked a link."""
        self.post_message(LinkClicked(unquote(href)))  # the Markdown parser percent-encoded it
