"""Find a saved snapshot by its name, the beginning of it, its path, or "latest"."""

from __future__ import annotations

import os
from pathlib import Path

from quantchat.errors import UserError
from quantchat.snapshot import store

LATEST = "latest"
"""The NAME of the newest snapshot."""


def found(folder: Path, name: str) -> Path:
    """The file that `name` means: a path, or a file of the folder, by its name or its beginning.

    "latest" means the newest snapshot of the folder, unless a file is called so. Raises UserError
    where there is none, and where several begin so.
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
            f"{len(begun)} snapshots begin so",
            where=name,
            hint=f"give more of it: {begun[0].name}, {begun[1].name}"
            + (", …" if len(begun) > 2 else ""),
        )
    if begun:
        return begun[0]
    raise UserError(
        "no such snapshot",
        where=name,
        hint="`quantchat snapshots` lists those in the folder; else give a file",
    )


def _named(folder: Path, name: str) -> Path | None:
    """The file of just this name, with or without its ending, or the path."""
    if os.sep in name:
        return Path(name)
    for path in (Path(name), folder / name, folder / f"{name}.json"):
        # `lexists` takes any name: one with a NUL or too long is just not there.
        if os.path.lexists(path):
            return path
    return None
