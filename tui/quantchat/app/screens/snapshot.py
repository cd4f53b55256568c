"""Screens about saved snapshots: show one as tables, compare several, delete one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.console import RenderableType
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.app.crash_recovery import DISK_WAIT_S
from quantchat.app.widgets.dialog import SCROLLS_AND_CLOSES, Dialog
from quantchat.app.widgets.text_layout import untrusted
from quantchat.daemon_thread import to_daemon_thread
from quantchat.document.terminal import renderable
from quantchat.errors import UserError
from quantchat.report import compared_snapshots
from quantchat.report.snapshot import blocks
from quantchat.snapshot.schema import Snapshot
from quantchat.text import one_line


class _TablesScreen(ModalScreen[bool]):
    """Shows tables in a scroll container."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,enter,q", "dismiss", "Close")]
    DEFAULT_CSS = """
    _TablesScreen {
        .dialog { width: 96%; max-width: 160; height: 92%; padding: 0 1; }
        Static { height: auto; }
    }
    """

    WHAT = ""
    KEYS = SCROLLS_AND_CLOSES

    def __init__(self, tables: RenderableType) -> None:
        super().__init__()
        self._tables = tables

    def compose(self) -> ComposeResult:
        """Lay out the tables in a scroll container."""
        with Dialog(self.WHAT, self.KEYS), VerticalScroll():
            yield Static(self._tables)


class SnapshotScreen(_TablesScreen):
    """Shows what `quantchat snapshots show` prints."""

    WHAT = "Snapshot"

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(renderable(blocks(snapshot)))


class ComparedScreen(_TablesScreen):
    """Shows what `quantchat compare --force` prints: it also says why runs are not comparable."""

    WHAT = "Comparison"

    @classmethod
    def of(cls, saved: Sequence[tuple[str, Snapshot]]) -> ComparedScreen:
        """Return the screen for `saved`, each with its file's name. Raises UserError.

        Computing intervals takes seconds: call it in a thread.
        """
        return cls(renderable(compared_snapshots.blocks(saved, force=True)))


class DeleteScreen(ModalScreen[bool]):
    """Asks whether to delete the file of a snapshot; returns whether it was deleted.

    Del in the list of snapshots opens this dialog, and Del in the dialog deletes the file.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        ("delete", "delete", "Delete"),
        ("escape,q", "dismiss(False)", "Cancel"),
    ]
    DEFAULT_CSS = "DeleteScreen { Static { height: auto; } }"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def compose(self) -> ComposeResult:
        """Lay out the question and the path of the file."""
        with Dialog("Delete this snapshot for good?", "Del: delete · Esc: cancel"):
            yield Static(untrusted(str(self._path)))

    def action_delete(self) -> None:
        """Delete the file and close the dialog; if that fails, say why."""
        self._delete()

    @work(exclusive=True)
    async def _delete(self) -> None:
        remove = partial(self._path.unlink, missing_ok=True)  # Del may be pressed twice
        try:
            await to_daemon_thread(remove, within_s=DISK_WAIT_S)
        except (OSError, UserError) as error:
            reason = getattr(error, "strerror", None) or error
            self.app.notify(
                one_line(f"{self._path.name} cannot be deleted: {reason}"),
                severity="error",
                timeout=15,
                markup=False,
            )
            self.dismiss(False)
        else:
            self.dismiss(True)
