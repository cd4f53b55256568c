"""A choice among several and a tick, whose state can be read without colour.

Space switches them. Textual's own take Enter too, which here is left to the dialog around them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Checkbox, RadioButton, RadioSet

_TAKES_ENTER = "enter,space"


def _but_enter(bindings: list[BindingType]) -> list[BindingType]:
    """`bindings`, with Space alone where Textual has Enter as well."""
    return [
        replace(one, key="space") if isinstance(one, Binding) and one.key == _TAKES_ENTER else one
        for one in bindings
    ]


class Choices(RadioSet, inherit_bindings=False):
    """Choices of which one is made."""

    BINDINGS: ClassVar[list[BindingType]] = _but_enter(RadioSet.BINDINGS)


class Choice(RadioButton):
    """One of several: it has the dot. Textual's own has it always, and dims it."""

    def render(self) -> Content:
        """The button, then its label."""
        self.BUTTON_INNER = "●" if self.value else " "
        return super().render()


class Tick(Checkbox, inherit_bindings=False):
    """On or off."""

    BINDINGS: ClassVar[list[BindingType]] = _but_enter(Checkbox.BINDINGS)

    def render(self) -> Content:
        """The button, then its label."""
        self.BUTTON_INNER = "✓" if self.value else " "
        return super().render()
