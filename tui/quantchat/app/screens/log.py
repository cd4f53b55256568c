"""The log of a worker process: what its libraries printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.widgets import Log

from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.text_layout import untrusted
from quantchat.files import read_tail
from quantchat.session.live_variant import LiveVariant
from quantchat.text import neutralise

TAIL = 256 * 1024
"""Bytes shown from the end of a log."""
_REREAD_S = 1.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class LogScreen(ModalScreen[None]):
    """Shows and follows the end of a variant's log; Tab switches to the other variant."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,alt+l,q", "dismiss", "Close"),
        ("tab,shift+tab", "other", "Other variant"),
    ]
    DEFAULT_CSS = """
    LogScreen {
        .dialog { width: 96%; max-width: 200; height: 90%; padding: 0 1; }
        Log { background: $surface; scrollbar-size-vertical: 1; }
    }
    """

    def __init__(self, variants: tuple[LiveVariant, ...]) -> None:
        super().__init__()
        self._variants = variants
        self._shown = 0
        self._text: str | None = None

    def compose(self) -> ComposeResult:
        """Put the log into a frame; `_read` sets its title."""
        with Dialog(keys="Tab: other variant · ↑↓: scroll · Esc: close"):
            yield Log()

    def on_mount(self) -> None:
        """Show the right variant's log first if only the right variant failed, else the left's."""
        self._shown = 1 if self._variants[1].failure and not self._variants[0].failure else 0
        self._read()
        self.set_interval(_REREAD_S, self._read)

    def _read(self) -> None:
        variant = self._variants[self._shown]
        text = tail(variant.log) if variant.log else "(the worker has not started yet)"
        if text == self._text:
            return
        self._text = text
        place = f" · {variant.log}" if variant.log else ""
        self.query_one(Dialog).border_title = untrusted(f"{variant.label}{place}")
        log = self.query_one(Log)
        log.clear()
        log.write(text)

    def action_other(self) -> None:
        """Switch to the other variant's log."""
        self._shown = 1 - self._shown
        self._text = None
        self._read()


def tail(log: Path) -> str:
    """Return the last `TAIL` bytes of `log` without control characters and colour codes.

    Each step of a progress bar becomes a line. If the log cannot be read, the text says why.
    """
    try:
        end = read_tail(log, TAIL)
    except OSError as error:
        return neutralise(f"The log {log} cannot be read: {error.strerror or error}.")
    text = end.replace("\r\n", "\n").replace("\r", "\n")
    return neutralise(_COLOURS.sub("", text)) or "(the log is empty)"
