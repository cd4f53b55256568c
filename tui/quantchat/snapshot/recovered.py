"""Conversations that were not saved when the program had to leave: kept beside the snapshots.

Such a file is a snapshot like any other, named `….recovered.json` until its user keeps it for good
or discards it.
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
    """Keep `snapshot` in `folder` (by default the user's), as `store.save` does; the new file.

    Raises UserError.
    """
    return store.save(snapshot, folder, mark=".recovered")


def is_recovered(path: Path) -> bool:
    """Whether `path` is the name of a recovered conversation."""
    return _NAME.fullmatch(path.name) is not None


def waiting(folder: Path | None = None) -> list[Path]:
    """Recovered conversations that nobody has decided on yet, the newest first."""
    return [path for path in store.newest(folder) if is_recovered(path)]


def keep(path: Path) -> Path:
    """Make the recovered conversation at `path` a snapshot like any other; return its new name.

    Raises UserError where it is none.
    """
    named = _NAME.fullmatch(path.name)
    if named is None:
        raise UserError("is no recovered conversation, and so kept already", where=str(path))
    try:
        return move_new(path, path.with_name(f"{named['stem']}.json"))
    except OSError as error:
        raise UserError(f"cannot be kept: {error.strerror or error}", where=str(path)) from error


def discard(path: Path) -> None:
    """Remove the recovered conversation at `path`, and nothing else. Raises UserError."""
    if not is_recovered(path):
        raise UserError(
            "is no recovered conversation", where=str(path), hint="remove a saved one by hand"
        )
    try:
        path.unlink()
    except OSError as error:
        raise UserError(f"cannot be removed: {error.strerror or error}", where=str(path)) from error
