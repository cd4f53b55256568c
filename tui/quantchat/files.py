"""Files written whole or not at all, readable by the user alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Protocol

_BUFFER = 2**18
"""Bytes held: memory that a thread has once had is not given back to the system."""


class Digest(Protocol):
    """What takes bytes to make a hash of, as hashlib's do."""

    def update(self, data: memoryview, /) -> None:
        """Take `data` too."""


def take(stream: BufferedIOBase, digest: Digest, most: int | None = None) -> int:
    """Put what follows in `stream` into `digest`; return its bytes, 0 at the end.

    It takes all, or little more than `most` bytes. Raises OSError.
    """
    buffer = memoryview(bytearray(_BUFFER))
    done = 0
    while (most is None or done < most) and (read := stream.readinto(buffer)):
        digest.update(buffer[:read])
        done += read
    return done


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; False also for what can be no path: too long, or with a NUL."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether `path` is a regular file; False as `is_folder` has it."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def sha256(path: Path) -> str:
    """The SHA-256 of what `path` holds, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        take(stream, digest)
    return digest.hexdigest()


def write_whole(path: Path, data: bytes) -> Path:
    """Write `data` to `path`, in the place of what was there, and return `path`.

    The file is private (0600), on the disk before it has its name, and nothing is left behind where
    that fails. Raises OSError.
    """
    with _written(path.parent, data) as temporary:
        temporary.replace(path)
    return path


def write_new(path: Path, data: bytes) -> Path:
    """Write `data` to `path` or, where that is taken, to the first free `name-2` and so on.

    Returns the path it has. Two that save at once never meet, and a name is never seen before its
    file is whole, not even where this process is killed in the middle. Raises OSError.
    """
    with _written(path.parent, data) as temporary:
        return _named(temporary, path)


def move_new(file: Path, path: Path) -> Path:
    """Give `file` the name `path`, in the same folder, or the first free one as `write_new` does.

    Returns the name it has. Raises OSError.
    """
    place = _named(file, path)
    file.unlink(missing_ok=True)
    return place


def read_tail(path: Path, most: int) -> str:
    """Return the last `most` bytes of `path` as text. Raises OSError."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - most))
        return file.read().decode("utf-8", "replace")


@contextlib.contextmanager
def _written(folder: Path, data: bytes) -> Iterator[Path]:
    """A hidden file in `folder` that holds `data`, for as long as it has no other name."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _named(file: Path, path: Path) -> Path:
    """Give `file` the name `path` too, or the first free one after it; return that."""
    number, place = 1, path
    while True:
        try:
            _name(file, place)
        except FileExistsError:
            number += 1
            place = path.with_name(f"{path.stem}-{number}{path.suffix}")
        else:
            return place


def _name(temporary: Path, place: Path) -> None:
    """Give the file `temporary` the name `place` too. Raises FileExistsError where it is taken."""
    try:
        place.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: the name is taken first, then filled
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            temporary.replace(place)
        except BaseException:
            place.unlink(missing_ok=True)
            raise
