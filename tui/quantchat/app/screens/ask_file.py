"""The dialog that asks for a file of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from quantchat.app.crash_recovery import DISK_WAIT_S
from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.text_layout import quiet, untrusted
from quantchat.daemon_thread import to_daemon_thread
from quantchat.errors import UserError
from quantchat.session import prompts


class AskFileScreen(ModalScreen["tuple[str, ...] | None"]):
    """Returns the prompts of the file, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss", "Cancel")]
    DEFAULT_CSS = """
    AskFileScreen {
        .dialog { width: 76; height: auto; padding: 0 1; }
        Input { border: none; height: 1; padding: 0 1; background: $panel; }
        Input:focus { border: none; }
        Static { height: auto; }
        #complaint { color: $error; min-height: 1; }
    }
    """

    def compose(self) -> ComposeResult:
        """Lay out the box for the path."""
        with Dialog("Send the prompts of a file", "Enter: send · Esc: cancel"):
            yield Static(
                quiet(
                    "One prompt per line, or JSON Lines: strings, or objects with the key “prompt”."
                )
            )
            yield Input(placeholder="prompts.txt")
            yield Static(id="complaint")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        if path := event.value.strip():
            self._read_and_close(path)

    @work(exclusive=True)
    async def _read_and_close(self, path: str) -> None:
        """Close the dialog with the prompts of the file; if it cannot be read, show why."""
        try:
            read_prompts = await to_daemon_thread(
                lambda: prompts.read(Path(path).expanduser()), within_s=DISK_WAIT_S
            )
        except UserError as error:
            self.query_one("#complaint", Static).update(untrusted(str(error)))
        else:
            self.dismiss(read_prompts)
