"""Recovered conversations and measurements, which were saved when quantchat had to end.

Such a file is a normal snapshot in the folder of snapshots. Its name ends in `.recovered.json`
until the user keeps or discards it.
"""

from __future__ import annotations

import re
from pathlib import Path

from quantchat.errors import UserError
from quantchat.files import move_new
from quantchat.snapshot import store
from quantchat.snapshot.schema import Snapshot

_NAME = re.compile(r"(?P<stem>.+)\.recovered(-\d+)?\.json", re.S)


def save(snapshot: Snapshot, folder: Path | None = None) -> Path:
    """Save `snapshot` as a recovered one and return the new file.

    It is saved in `folder`, by default the user's folder of snapshots. Raises UserError as
    `store.save` does.
    """
    return store.save(snapshot, folder, mark=".recovered")


def is_recovered(path: Path) -> bool:
    """Return whether `path` is the name of a recovered snapshot."""
    return _NAME.fullmatch(path.name) is not None


def recovered_snapshots(folder: Path | None = None) -> list[Path]:
    """Return the recovered snapshots that the user has not kept or discarded, newest first."""
    return [path for path in store.newest(folder) if is_recovered(path)]


def keep(path: Path) -> Path:
    """Rename the recovered snapshot at `path` to a normal snapshot; return its new path.

    Raises UserError if it is not a recovered snapshot.
    """
    named = _NAME.fullmatch(path.name)
    if named is None:
        raise UserError("is not a recovered snapshot, so it is saved already", where=str(path))
    try:
        return move_new(path, path.with_name(f"{named['stem']}.json"))
    except OSError as error:
        raise UserError(f"cannot be renamed: {error.strerror or error}", where=str(path)) from error


def discard(path: Path) -> None:
    """Remove the recovered snapshot at `path`. Raises UserError if it is any other file."""
    if not is_recovered(path):
        raise UserError(
            "is not a recovered snapshot",
            where=str(path),
            hint="`quantchat snapshots remove` removes saved ones",
        )
    try:
        path.unlink()
    except OSError as error:
        raise UserError(f"cannot be removed: {error.strerror or error}", where=str(path)) from error
