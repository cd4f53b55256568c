"""A saved snapshot, as tables."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.report import tables
from quantchat.snapshot.schema import Snapshot


class SnapshotScreen(ModalScreen[bool]):
    """What `quantchat snapshots show` prints."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,enter,q", "close", "Close")]
    DEFAULT_CSS = """
    SnapshotScreen {
        .dialog { width: 96%; max-width: 160; height: 92%; padding: 0 1; }
        Static { height: auto; }
    }
    """

    WHAT = "Snapshot"
    KEYS = "↑↓ scroll · Esc closes"

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self._snapshot = snapshot

    def compose(self) -> ComposeResult:
        """The tables, to be scrolled."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = self.WHAT
            dialog.border_subtitle = self.KEYS
            with VerticalScroll():
                yield Static(tables.render(self._snapshot))

    def action_close(self) -> None:
        """Back to the start."""
        self.dismiss(False)
