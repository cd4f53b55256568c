"""The tabs of the two variants, for terminals with room for one column."""

from __future__ import annotations

from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widget import Widget

from quantchat.app.commands import command
from quantchat.app.widgets.column_header import BADGES
from quantchat.app.widgets.text_layout import SIDES, quiet, spread, untrusted
from quantchat.session.live_variant import LiveVariant


class TabLine(Widget):
    """Two tabs; a click, or the key named in the line, switches to the other."""

    DEFAULT_CSS = """
    TabLine { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; display: none; }
    """

    class Clicked(Message):
        """The user clicked the line to see the other column."""

    def __init__(self) -> None:
        super().__init__()
        self._variants: tuple[LiveVariant, ...] = ()
        self._shown = 0

    def show(self, variants: tuple[LiveVariant, ...], visible: int) -> None:
        """Set the variants; `visible` is the index of the visible one, 0 for the left."""
        self._variants, self._shown = variants, visible
        self.refresh()

    def render(self) -> Content:
        """Return the tabs with the symbols of the variants' states; the visible one reversed."""
        width = self.size.width
        hint = quiet(f"{command('maximise').key} other")
        room = max(4, (width - hint.cell_length - 12) // 2)
        tabs = []
        for index, (variant, side) in enumerate(zip(self._variants, SIDES, strict=False)):
            style = f"bold reverse {side}" if index == self._shown else side
            sign = BADGES[variant.state][0][0]
            label = untrusted(variant.label, style).truncate(room, ellipsis=True)
            tabs.append(Content.styled(f" {sign} ", style) + label + Content.styled(" ", style))
        return spread(Content(" ").join(tabs), hint, width)

    def on_click(self, event: Click) -> None:
        """Ask for the other tab."""
        event.stop()
        self.post_message(self.Clicked())
