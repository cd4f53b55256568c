"""Recovered snapshots: the user looks at one and saves or discards it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual.binding import BindingType
from textual.screen import Screen

from quantchat.app.crash_recovery import DISK_WAIT_S
from quantchat.app.screens.snapshot import SnapshotScreen
from quantchat.daemon_thread import to_daemon_thread
from quantchat.errors import UserError
from quantchat.snapshot import recovered, store
from quantchat.snapshot.schema import Snapshot
from quantchat.text import one_line


class RecoveredScreen(SnapshotScreen):
    """Shows the recovered snapshot of `path`; the user saves it, discards it, or decides later.

    No letter is a key here: the user may already be typing a prompt when this screen opens.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        ("ctrl+s", "keep", "Save"),
        ("delete", "discard", "Discard"),
    ]
    WHAT = "Recovered: not saved before it was replaced or quantchat ended"
    KEYS = "^S: save · Del: discard · Esc: decide later · ↑↓: scroll"

    def __init__(self, path: Path, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        self._path = path
        self._deciding = False
        """Whether the file is being renamed or removed."""

    def action_keep(self) -> None:
        """Turn the recovered snapshot into an ordinary one."""
        self._decide(lambda: str(recovered.keep(self._path)), "Snapshot saved")

    def action_discard(self) -> None:
        """Delete the file of the recovered snapshot."""

        def remove() -> str:
            recovered.discard(self._path)
            return self._path.name

        self._decide(remove, "Discarded")

    def _decide(self, act: Callable[[], str], title: str) -> None:
        if not self._deciding:
            self._deciding = True
            self.run_worker(self._do(act, title))

    async def _do(self, act: Callable[[], str], title: str) -> None:
        try:
            done = await to_daemon_thread(act, within_s=DISK_WAIT_S)
        except UserError as error:
            self.app.notify(one_line(str(error)), severity="error", timeout=15, markup=False)
            self._deciding = False
        else:
            self.app.notify(one_line(done), title=title, timeout=10, markup=False)
            self.dismiss(True)


async def offer(
    screen: Screen[None], folder: Path | None, on_decided: Callable[[], object] = lambda: None
) -> None:
    """Show on `screen` the recovered snapshots of `folder`, the newest first.

    Stops when none is left or the user postpones the decision. `on_decided` is called after each
    snapshot that the user saved or discarded.
    """

    def next_one(decided: bool | None) -> None:
        if decided:
            on_decided()
            screen.run_worker(offer(screen, folder, on_decided))

    try:
        unreadable, found = await to_daemon_thread(lambda: _newest(folder), within_s=DISK_WAIT_S)
    except UserError as error:
        unreadable, found = [str(error)], None
    for reason in unreadable:
        screen.notify(one_line(reason), severity="error", timeout=15, markup=False)
    if found is not None:
        screen.app.push_screen(RecoveredScreen(*found), next_one)


def _newest(folder: Path | None) -> tuple[list[str], tuple[Path, Snapshot] | None]:
    """Return why snapshots cannot be read, and the newest recovered one that can be read.

    The second item is None if `folder` has no readable recovered snapshot.
    """
    unreadable: list[str] = []
    for path in recovered.recovered_snapshots(folder):
        try:
            return unreadable, (path, store.load(path))
        except UserError as error:
            unreadable.append(str(error))
    return unreadable, None
