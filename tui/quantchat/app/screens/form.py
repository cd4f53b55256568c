"""Base class of dialogs that ask for several values before a long task begins."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

import click
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.text_layout import quiet
from quantchat.errors import UserError
from quantchat.text import one_line

_Result = TypeVar("_Result")


class WrongValue(Exception):
    """What is wrong with the value of the field `name`."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Form(ModalScreen["_Result | None"], Generic[_Result]):
    """Returns the `result` of the fields, or None if the user cancels."""

    WHAT: ClassVar[str]
    """The title of the dialog."""
    VERB: ClassVar[str]
    """What Enter does."""
    LABELS: ClassVar[dict[str, str]]
    """The label of each field, by the id of its widget."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "dismiss", "Cancel"),
        ("enter,ctrl+s", "begin", "Begin"),
    ]
    DEFAULT_CSS = """
    Form {
        .dialog { width: 78; padding: 0 2; }
        RadioSet, RadioSet:focus {
            border: none; padding: 0; width: 1fr; height: auto; background: transparent;
            layout: horizontal;
        }
        RadioSet:blur > RadioButton.-selected > .toggle--label { background: transparent; }
        RadioButton, Checkbox {
            border: none; padding: 0 1 0 0; background: transparent; height: 1; width: auto;
        }
        Checkbox:focus { border: none; background: $primary 20%; }
        Grid { grid-size: 2; grid-columns: 18 1fr; grid-rows: auto; height: auto; }
        Input { border: none; height: 1; padding: 0 1; background: $panel; }
        Input:focus { background: $primary 20%; border: none; }
        #about { height: auto; margin-top: 1; color: $quiet; }
        #complaint { height: auto; min-height: 1; color: $error; }
    }
    """

    def compose(self) -> ComposeResult:
        """Lay out the fields below each other, each with its label."""
        keys = f"Enter or ^S: {self.VERB} · Tab: next · Space: choose · Esc: cancel"
        with Dialog(self.WHAT, keys):
            with Grid():
                for name, field in zip(self.LABELS, self.fields(), strict=True):
                    field.id = name
                    yield Label(self.LABELS[name])
                    yield field
            yield Static(quiet(self.about()), id="about")
            yield Static(id="complaint")

    def fields(self) -> ComposeResult:
        """Yield the widget of each field, in the order of `LABELS`."""
        raise NotImplementedError

    def about(self) -> str:
        """Return what the user should know."""
        raise NotImplementedError

    def result(self) -> _Result:
        """Return what the user entered. Raises WrongValue, or UserError if it is impossible."""
        raise NotImplementedError

    def text(self, name: str) -> str:
        """Return what is written in the field `name`, without spaces at its ends."""
        return self.query_one(f"#{name}", Input).value.strip()

    def value(self, name: str, kind: click.ParamType[Any]) -> Any:
        """Return the value of the field `name`, checked like an option on the command line.

        Return None if the field is empty. Raises WrongValue.
        """
        text = self.text(name)
        if not text:
            return None
        try:
            return kind.convert(text, None, None)
        except click.UsageError as error:
            raise WrongValue(name, error.message) from None

    @on(Input.Submitted)
    def action_begin(self) -> None:
        """Close the dialog with `result`, or show what is wrong."""
        try:
            found = self.result()
        except WrongValue as error:
            self._complain(f"{self.LABELS[error.name]}: {error}")
            self.query_one(f"#{error.name}").focus()
        except UserError as error:
            self._complain(str(error))
        else:
            self.dismiss(found)

    def _complain(self, text: str) -> None:
        self.query_one("#complaint", Static).update(Content(one_line(text)))
