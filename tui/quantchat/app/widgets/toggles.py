"""A choice among several and a tick, whose state can be read without colour."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Checkbox, RadioButton


class Choice(RadioButton):
    """One of several: it has the dot. Textual's own has it always, and dims it."""

    def render(self) -> Content:
        """The button, then its label."""
        self.BUTTON_INNER = "●" if self.value else " "
        return super().render()


class Tick(Checkbox):
    """On or off."""

    def render(self) -> Content:
        """The button, then its label."""
        self.BUTTON_INNER = "✓" if self.value else " "
        return super().render()
