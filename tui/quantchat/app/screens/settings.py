"""The dialog for the system prompt and the sampling settings, validated like a profile."""

from __future__ import annotations

from collections.abc import Sequence
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
from quantchat.app.widgets.text_layout import quiet
from quantchat.profile.field_docs import meanings
from quantchat.profile.mistakes import mistakes
from quantchat.profile.model import Generation
from quantchat.profile.toml_out import value_toml
from quantchat.profile.toml_text import TomlError, parse
from quantchat.session.recommended import Recommendation
from quantchat.text import neutralise, one_line

_LISTS = {"stop": ("[", "]"), "logit_bias": ("{", "}")}
"""Setting that holds several values → the brackets around these values in TOML."""
_EXAMPLES = {"stop": '"User:", "\\n\\n"', "logit_bias": "198 = -100, 25 = 3.5"}
"""Setting that holds several values → an example of its text."""
_NUMBERS = [name for name in Generation.model_fields if name not in ("system", *_LISTS)]


class SettingsScreen(ModalScreen["Generation | None"]):
    """Returns the new settings, or None if the user cancels."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "dismiss", "Cancel"),
        ("ctrl+s,enter", "apply", "Apply"),
        ("ctrl+r", "recommended", "Recommended"),
    ]
    DEFAULT_CSS = """
    SettingsScreen {
        .dialog { width: 76; padding: 1 2 0 2; }
        #system {
            height: auto; min-height: 2; max-height: 5; margin-bottom: 1;
            border: none; padding: 0 1; background: $panel;
        }
        Grid { grid-rows: 1; height: auto; }
        #numbers { grid-size: 4; grid-columns: 20 14 20 1fr; }
        #lists { grid-size: 2; grid-columns: 20 1fr; }
        Input { border: none; height: 1; padding: 0 1; background: $panel; }
        #numbers Input { width: 12; }
        Input:focus, #system:focus { background: $primary 20%; border: none; }
        #recommended { height: auto; max-height: 3; }
        #about { height: 2; margin-top: 1; color: $quiet; }
        #complaint { height: auto; min-height: 1; color: $error; }
    }
    """

    def __init__(self, generation: Generation, recommended: Sequence[Recommendation] = ()) -> None:
        """`recommended` are the settings that the shown models' files recommend."""
        super().__init__()
        self._generation = generation
        self._recommended = [one for one in recommended if one.changes(generation)]
        self._next = 0
        """Index of the recommendation that the key fills in next."""
        self._meanings = meanings(Generation)

    def compose(self) -> ComposeResult:
        """Lay out an input for each setting; below, the description of the focused one."""
        own = " · ^R: recommended" if self._recommended else ""
        with Dialog("Settings from the next prompt on", f"Enter or ^S: apply{own} · Esc: cancel"):
            yield Label("system prompt")
            system = TextArea(neutralise(self._generation.system), id="system")
            system.show_line_numbers = False
            yield system
            with Grid(id="numbers"):
                for name in _NUMBERS:
                    yield Label(_words(name))
                    yield Input(str(getattr(self._generation, name)), id=name)
            with Grid(id="lists"):
                for name in _LISTS:
                    value = getattr(self._generation, name)
                    text = neutralise(value_toml(value)[1:-1].strip()) if value else ""
                    yield Label(_words(name))
                    yield Input(text, id=name, placeholder=_EXAMPLES[name])
            if self._recommended:
                lines = [self._line(one) for one in self._recommended]
                yield Static(Content("\n").join(lines), id="recommended")
            yield Static(id="about")
            yield Static(id="complaint")

    def _line(self, one: Recommendation) -> Content:
        """Return the text of a recommendation: the file, the models, and the changed settings."""
        changes = ", ".join(
            f"{_words(name)} {value}" for name, value in one.changes(self._generation).items()
        )
        return quiet(one_line(f"{one.source} of {' and '.join(one.labels)}: {changes}"))

    def action_recommended(self) -> None:
        """Fill in the first recommendation; at the next call the next one."""
        if not self._recommended:
            return
        one = self._recommended[self._next % len(self._recommended)]
        self._next += 1
        for name, value in one.settings.items():
            self.query_one(f"#{name}", Input).value = f"{value:g}"
        filled = f"Filled in from the {one.source} of {' and '.join(one.labels)}."
        self.query_one("#about", Static).update(Content(one_line(filled)))

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Show the description of the focused setting, from the schema of profiles."""
        meaning = self._meanings.get(event.widget.id or "")
        if meaning is not None:
            self.query_one("#about", Static).update(Content(meaning))

    @on(Input.Submitted)
    def action_apply(self) -> None:
        """Validate the input and return the settings, or show which field is wrong and why."""
        values: dict[str, object] = {"system": self.query_one("#system", TextArea).text}
        for name in (*_NUMBERS, *_LISTS):
            text = self.query_one(f"#{name}", Input).value.strip()
            try:
                values[name] = _list(name, text) if name in _LISTS else _number(name, text)
            except ValueError as error:
                self._complain(name, str(error))
                return
        try:
            generation = Generation.model_validate(values)
        except ValidationError as error:
            first = next(mistakes(error, Generation))
            self._complain(str(first.path[0]), first.text)
            return
        self.dismiss(generation)

    def _complain(self, name: str, complaint: str) -> None:
        text = one_line(f"{_words(name)}: {complaint}")
        self.query_one("#complaint", Static).update(Content(text))
        self.query_one(f"#{name}").focus()


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(name: str, text: str) -> float | int:
    """Return the number in `text`. Raises ValueError."""
    kind = Generation.model_fields[name].annotation
    try:
        return float(text) if kind is float else int(text)
    except ValueError:
        expected = "a number" if kind is float else "a whole number"
        raise ValueError(f"{text!r} is not {expected}") from None


def _list(name: str, text: str) -> object:
    """Return the values in `text`, with or without the brackets of TOML. Raises ValueError."""
    opening, closing = _LISTS[name]
    bare = text.removeprefix(opening).removesuffix(closing)
    try:
        return parse(f"_ = {opening}{bare}{closing}")["_"]
    except TomlError:
        raise ValueError(f"write it as in a profile, e.g. {_EXAMPLES[name]}") from None
