"""Find a saved snapshot by its name, the beginning of its name, its path, or "latest"."""

from __future__ import annotations

import os
from pathlib import Path

from quantchat.errors import UserError
from quantchat.snapshot import store

LATEST = "latest"
"""The name that stands for the newest snapshot."""


def find_snapshot(folder: Path, name: str) -> Path:
    """Return the file that `name` means: a path, or a file in `folder` by (the start of) its name.

    "latest" means the newest snapshot of the folder, unless a file has this name. Raises UserError
    if there is no such file, or if several names begin with `name`.
    """
    path = _named(folder, name)
    if path is not None:
        return path
    known = store.newest(folder) if name else []
    if name == LATEST and known:
        return known[0]
    begun = [path for path in known if path.name.startswith(name)]
    if len(begun) > 1:
        raise UserError(
            f"{len(begun)} snapshots begin with this",
            where=name,
            hint=f"type more of the name: {begun[0].name}, {begun[1].name}"
            + (", …" if len(begun) > 2 else ""),
        )
    if begun:
        return begun[0]
    raise UserError(
        "no such snapshot",
        where=name,
        hint="`quantchat snapshots` lists the names; a path of a file works too",
    )


def _named(folder: Path, name: str) -> Path | None:
    """Return the path `name`, or the file with exactly this name or `name`.json; else None."""
    if os.sep in name:
        return Path(name)
    for path in (Path(name), folder / name, folder / f"{name}.json"):
        # `lexists` returns False for a name that is too long or contains a NUL.
        if os.path.lexists(path):
            return path
    return None
