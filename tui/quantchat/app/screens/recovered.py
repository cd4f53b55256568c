"""A conversation that was kept when quantchat had to leave: looked at, kept for good, discarded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual.binding import BindingType
from textual.screen import Screen

from quantchat.app.screens.snapshot import SnapshotScreen
from quantchat.errors import UserError
from quantchat.snapshot import recovered, store
from quantchat.snapshot.schema import Snapshot
from quantchat.text import one_line


class RecoveredScreen(SnapshotScreen):
    """Shows what is in `path`, and lets its user decide; Esc puts that off.

    No letter decides: who opens a comparison may be typing already.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        ("ctrl+s", "keep", "Keep"),
        ("delete", "discard", "Discard"),
    ]
    WHAT = "Recovered: nobody saved this when it was replaced or quantchat had to leave"
    KEYS = "^S keeps it · Del discards it · Esc decides later · ↑↓ scroll"

    def __init__(self, path: Path, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        self._path = path

    def action_keep(self) -> None:
        """Make it a snapshot like any other."""
        self._decide(lambda: str(recovered.keep(self._path)), "Kept")

    def action_discard(self) -> None:
        """Remove it."""

        def remove() -> str:
            recovered.discard(self._path)
            return self._path.name

        self._decide(remove, "Discarded")

    def _decide(self, act: Callable[[], str], title: str) -> None:
        try:
            self.app.notify(one_line(act()), title=title, timeout=10, markup=False)
        except UserError as error:
            self.app.notify(one_line(str(error)), severity="error", timeout=15, markup=False)
            return
        self.dismiss(True)


def offer(
    screen: Screen[None], folder: Path | None, on_decided: Callable[[], object] = lambda: None
) -> None:
    """Show on `screen` the newest recovered conversation of `folder`, then the next one.

    Until there is none left, or its user puts it off.
    """

    def next_one(decided: bool | None) -> None:
        if decided:
            on_decided()
            offer(screen, folder, on_decided)

    for path in recovered.waiting(folder):
        try:
            snapshot = store.load(path)
        except UserError as error:
            screen.notify(one_line(str(error)), severity="error", timeout=15, markup=False)
        else:
            screen.app.push_screen(RecoveredScreen(path, snapshot), next_one)
            return
