"""Files written whole or not at all, readable by the user alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, data: bytes) -> Path:
    """Write `data` to `path`, in the place of what was there, and return `path`.

    The file is private (0600), on the disk before it has its name, and nothing is left behind where
    that fails. Raises OSError.
    """
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def write_new(path: Path, data: bytes) -> Path:
    """Write `data` to `path` or, where that is taken, to the first free `name-2` and so on.

    Returns the path it has. Two that save at once never meet. Raises OSError.
    """
    place = _reserve(path)
    try:
        return write_whole(place, data)
    except BaseException:
        place.unlink(missing_ok=True)
        raise


def _reserve(path: Path) -> Path:
    """Make an empty file of a name that is free."""
    number, place = 1, path
    while True:
        try:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            number += 1
            place = path.with_name(f"{path.stem}-{number}{path.suffix}")
        else:
            return place
