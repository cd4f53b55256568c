"""A saved snapshot as tables."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.app.widgets.dialog import SCROLLS_AND_CLOSES, Dialog
from quantchat.document.terminal import rendered
from quantchat.report.snapshot import blocks
from quantchat.snapshot.schema import Snapshot


class SnapshotScreen(ModalScreen[bool]):
    """Shows what `quantchat snapshots show` prints."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,enter,q", "dismiss", "Close")]
    DEFAULT_CSS = """
    SnapshotScreen {
        .dialog { width: 96%; max-width: 160; height: 92%; padding: 0 1; }
        Static { height: auto; }
    }
    """

    WHAT = "Snapshot"
    KEYS = SCROLLS_AND_CLOSES

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self._snapshot = snapshot

    def compose(self) -> ComposeResult:
        """Lay out the tables in a scroll container."""
        with Dialog(self.WHAT, self.KEYS), VerticalScroll():
            yield Static(rendered(blocks(self._snapshot)))
