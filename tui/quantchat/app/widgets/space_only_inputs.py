"""Radio buttons and check boxes that only Space switches, and that can be read without colour.

Textual's own widgets take Enter too; here Enter confirms the dialog.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Checkbox, RadioButton, RadioSet

_ENTER_OR_SPACE = "enter,space"


def _without_enter(bindings: list[BindingType]) -> list[BindingType]:
    """Return `bindings` with Space in place of Enter or Space."""
    return [
        replace(one, key="space")
        if isinstance(one, Binding) and one.key == _ENTER_OR_SPACE
        else one
        for one in bindings
    ]


class Choices(RadioSet, inherit_bindings=False):
    """A set of radio buttons."""

    BINDINGS: ClassVar[list[BindingType]] = _without_enter(RadioSet.BINDINGS)


class Choice(RadioButton):
    """A radio button with a dot only if chosen; Textual always draws the dot and dims it."""

    def render(self) -> Content:
        """Return the button and its label."""
        self.BUTTON_INNER = "●" if self.value else " "
        return super().render()


class Tick(Checkbox, inherit_bindings=False):
    """A check box."""

    BINDINGS: ClassVar[list[BindingType]] = _without_enter(Checkbox.BINDINGS)

    def render(self) -> Content:
        """Return the button and its label."""
        self.BUTTON_INNER = "✓" if self.value else " "
        return super().render()
