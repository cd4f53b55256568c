"""Writes files completely or not at all, by default private to the user; hashes and reads files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Protocol

_BUFFER = 2**18
"""Buffer size in bytes. It is small, because the C library may keep the memory that a thread frees
instead of returning it to the system."""


class Digest(Protocol):
    """The interface of a hash object of hashlib."""

    def update(self, data: memoryview, /) -> None:
        """Add `data` to the hash."""


def add_to_hash(stream: BufferedIOBase, digest: Digest, enough: int | None = None) -> int:
    """Add the rest of `stream` to `digest`; return the number of bytes read, 0 at its end.

    With `enough`, stop as soon as at least that many bytes are read. Raises OSError.
    """
    buffer = memoryview(bytearray(_BUFFER))
    done = 0
    while (enough is None or done < enough) and (read := stream.readinto(buffer)):
        digest.update(buffer[:read])
        done += read
    return done


def is_folder(path: Path) -> bool:
    """Return whether `path` is a folder; False also if `path` is too long or contains a NUL."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Return whether `path` is a regular file; False also if it is too long or contains a NUL."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def sha256(path: Path) -> str:
    """Return the SHA-256 of the content of `path`, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        add_to_hash(stream, digest)
    return digest.hexdigest()


def write_whole(path: Path, data: bytes, *, private: bool = True) -> Path:
    """Write `data` to `path`, replacing an existing file, and return `path`.

    The file is private (0600); without `private`, the user's umask decides. The file gets its name
    only when its data is on the disk. A failure leaves no temporary file behind. Raises OSError.
    """
    with _temporary_file(path.parent, data, 0o600 if private else 0o666) as temporary:
        temporary.replace(path)
    return path


def write_new(path: Path, data: bytes) -> Path:
    """Write `data` to `path` or, if that exists, to the first free `name-2`, `name-3` and so on.

    Returns the path of the new file. Two processes that save at once never get the same name. A
    name appears only when its file is complete, even if this process is killed while it writes.
    Only on a file system without hard links, an empty file reserves the name first. Raises OSError.
    """
    with _temporary_file(path.parent, data) as temporary:
        return _named(temporary, path)


def move_new(file: Path, path: Path) -> Path:
    """Rename `file` to `path`, in the same folder, or to the first free `name-2`, `name-3` etc.

    Returns the new path. Raises OSError.
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
def _temporary_file(folder: Path, data: bytes, mode: int = 0o600) -> Iterator[Path]:
    """Yield a hidden file in `folder` that contains `data`; unlink it at the end.

    Its mode is `mode` without the bits of the umask, which `tempfile` would not respect.
    """
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _named(file: Path, path: Path) -> Path:
    """Give `file` the additional name `path`, or the first free one after it; return that name."""
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
    """Give `temporary` the additional name `place`. Raises FileExistsError if that exists."""
    try:
        place.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: reserve the name, then replace that file
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            temporary.replace(place)
        except BaseException:
            place.unlink(missing_ok=True)
            raise
