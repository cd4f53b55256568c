"""The bottom line with the keys: as many as fit, the most useful ones first."""

from __future__ import annotations

from textual.content import Content
from textual.events import Click
from textual.widget import Widget

from quantchat.app.commands import COMMANDS, Command
from quantchat.app.messages import CommandChosen
from quantchat.app.widgets.text_layout import GAP, hints


class KeyLine(Widget):
    """Shows keys and labels; a click on a label runs its command."""

    DEFAULT_CSS = """
    KeyLine { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; }
    """
    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__()
        self._urgent: tuple[str, ...] = ()
        self._labels: dict[str, str] = {}

    def relabel(self, id_: str, label: str) -> None:
        """Show `label` for the command `id_`, for example the state that it switches."""
        self._labels[id_] = label
        self.refresh()

    def put_first(self, *ids: str) -> None:
        """Show the commands `ids` before all others."""
        if ids != self._urgent:
            self._urgent = ids
            self.refresh()

    def render(self) -> Content:
        """Return the entries that fit; none is cut."""
        return hints((one.key, self._label(one)) for one in self._visible_commands())

    def _visible_commands(self) -> list[Command]:
        urgent = [one for id_ in self._urgent for one in COMMANDS if one.id == id_]
        others = sorted((c for c in COMMANDS if c.rank < 99), key=lambda one: one.rank)
        room, shown = self.size.width, []
        for one in [*urgent, *(other for other in others if other not in urgent)]:
            cells = self._cells(one)
            if cells <= room:
                shown.append(one)
                room -= cells + len(GAP)
        return shown

    def on_click(self, event: Click) -> None:
        """Run the command under the pointer."""
        left = 1
        for one in self._visible_commands():
            if left <= event.x < left + self._cells(one):
                self.post_message(CommandChosen(one.id))
            left += self._cells(one) + len(GAP)

    def _label(self, one: Command) -> str:
        return self._labels.get(one.id, one.label)

    def _cells(self, one: Command) -> int:
        return Content(f"{one.key} {self._label(one)}").cell_length
