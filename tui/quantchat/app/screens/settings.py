"""The dialog for the system prompt and the sampling settings, validated like a profile."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ValidationError
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid
from textual.content import Content
from textual.events import DescendantFocus
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static, TextArea

from quantchat.app.widgets.dialog import Dialog
from quantchat.profile.field_docs import meanings
from quantchat.profile.mistakes import mistakes
from quantchat.profile.model import Generation
from quantchat.text import neutralise, one_line

_NUMBERS = [name for name in Generation.model_fields if name != "system"]


class SettingsScreen(ModalScreen["Generation | None"]):
    """Returns the new settings, or None if the user cancels."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "dismiss", "Cancel"),
        ("ctrl+s,enter", "apply", "Apply"),
    ]
    DEFAULT_CSS = """
    SettingsScreen {
        .dialog { width: 76; padding: 1 2 0 2; }
        #system {
            height: auto; min-height: 2; max-height: 5; margin-bottom: 1;
            border: none; padding: 0 1; background: $panel;
        }
        Grid { grid-size: 2; grid-columns: 20 1fr; grid-rows: 1; height: auto; }
        Input { border: none; height: 1; padding: 0 1; background: $panel; width: 24; }
        Input:focus, #system:focus { background: $primary 20%; border: none; }
        #about { height: 2; margin-top: 1; color: $quiet; }
        #complaint { height: auto; min-height: 1; color: $error; }
    }
    """

    def __init__(self, generation: Generation) -> None:
        super().__init__()
        self._generation = generation
        self._meanings = meanings(Generation)

    def compose(self) -> ComposeResult:
        """Lay out an input for each setting; below, the description of the focused one."""
        keys = "Enter or ^S: apply · Tab: next · Esc: cancel"
        with Dialog("Settings from the next prompt on", keys):
            yield Label("system prompt")
            system = TextArea(neutralise(self._generation.system), id="system")
            system.show_line_numbers = False
            yield system
            with Grid():
                for name in _NUMBERS:
                    yield Label(name.replace("_", " "))
                    yield Input(str(getattr(self._generation, name)), id=name)
            yield Static(id="about")
            yield Static(id="complaint")

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Show the description of the focused setting, as the profile's schema has it."""
        meaning = self._meanings.get(event.widget.id or "")
        if meaning is not None:
            self.query_one("#about", Static).update(Content(meaning))

    @on(Input.Submitted)
    def action_apply(self) -> None:
        """Validate the input and return the settings, or show which field is wrong and why."""
        values: dict[str, object] = {"system": self.query_one("#system", TextArea).text}
        for name in _NUMBERS:
            kind = Generation.model_fields[name].annotation
            text = self.query_one(f"#{name}", Input).value.strip()
            try:
                values[name] = float(text) if kind is float else int(text)
            except ValueError:
                expected = "a number" if kind is float else "a whole number"
                self._complain(name, f"{text!r} is not {expected}")
                return
        try:
            generation = Generation.model_validate(values)
        except ValidationError as error:
            first = next(mistakes(error, Generation))
            self._complain(str(first.path[0]), first.text)
            return
        self.dismiss(generation)

    def _complain(self, name: str, complaint: str) -> None:
        text = one_line(f"{name.replace('_', ' ')}: {complaint}")
        self.query_one("#complaint", Static).update(Content(text))
        self.query_one(f"#{name}").focus()
