"""One answer on the screen: a single widget of lines, however long it is."""

from __future__ import annotations

from urllib.parse import unquote

from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual
from textual.widget import Widget

from quantchat.app.growing_text import GrowingText
from quantchat.app.messages import LinkClicked
from quantchat.app.widgets.ground import filtered
from quantchat.app.widgets.parting_mark import PartingMark

_STRIPS = 400
"""Lines kept ready to be drawn: those that are seen, and some around them."""


class AnswerView(Widget):
    """Follows an answer while it is streamed; `settle` draws the whole."""

    DEFAULT_CSS = """
    AnswerView { height: auto; width: 1fr; }
    """
    INDENT = 2
    """Cells at the left; a part of the lines, since padding would draw each one anew."""

    def __init__(self, mark: PartingMark | None = None, *, step: int = 1) -> None:
        """`mark` is drawn into the text. While that is streamed it moves up `step` lines at a time.

        Where it moves, all that is seen is sent to the terminal anew.
        """
        super().__init__()
        self._text = GrowingText()
        self._mark = mark
        self._step = step
        self._streams = True
        self._strips: dict[int, Strip] = {}

    # ------------------------------------------------------------ growing

    def write(self, text: str) -> None:
        """Append raw `text`."""
        if not text:
            return
        settled, height = self._text.settled, self._drawn_height
        self._text.feed(text)
        # Code that is coloured at its end changes lines that were settled.
        self._changed_from(min(settled, self._text.settled), height)

    def settle(self, text: str) -> None:
        """Draw the whole raw `text`. Nothing may be written after."""
        height, self._streams = self._drawn_height, False
        self._text.settle(text)
        self._changed_from(0, height)

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
        return -(-height // self._step) * self._step if self._streams else height

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as the text has at `width`."""
        del container, viewport
        if self._text.fit(max(1, width - self.INDENT)):
            self._strips.clear()
            if self._mark is not None:
                self._mark.moved(0)
        return self._drawn_height

    def notify_style_update(self) -> None:
        """Another theme: nothing that was drawn can stay."""
        super().notify_style_update()
        self._strips.clear()

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines within `crop`; there is no border or padding that Textual had to add."""
        if not self.is_attached:
            return super().render_lines(crop)
        lines = [self.render_line(y) for y in crop.line_range]
        if (crop.x, crop.width) == (0, self.size.width):
            return lines
        return [line.crop(crop.x, crop.right) for line in lines]

    def render_line(self, y: int) -> Strip:
        """Line `y` of the text, drawn once."""
        if y not in self._strips:
            if len(self._strips) >= _STRIPS:
                self._strips.clear()
            self._strips[y] = filtered(self, self._draw(y))
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
        # A strip that is not as wide as the widget would not be drawn at all.
        return strip.adjust_cell_length(width, self.rich_style).apply_offsets(0, y)

    # ------------------------------------------------------------ the mark

    def show_mark(self) -> None:
        """Draw the mark, which is known now."""
        place = self._mark.place(self._text) if self._mark is not None else None
        if place is not None:
            self._strips.pop(place.line, None)
            self.refresh(Region(0, place.line, self.size.width, 1))

    @property
    def marked_line(self) -> int:
        """Line that is marked; behind the last one where the answer parts by its end."""
        place = self._mark.place(self._text) if self._mark is not None else None
        return place.line if place is not None else self._text.height

    # ------------------------------------------------------------ selecting and links

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The text under the pointer's selection, as it is drawn."""
        lines = [self._text.line(y).pad_left(self.INDENT).plain for y in range(self._text.height)]
        return selection.extract("\n".join(line.rstrip() for line in lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Draw with the selection, or without."""
        del selection
        self._strips.clear()
        self.refresh()

    def action_link(self, href: str) -> None:
        """A link was clicked."""
        self.post_message(LinkClicked(unquote(href)))  # the parser quoted it
