"""Where a report goes: files written whole, in nothing's place but an older report's.

A folder of ours holds a list of what was written into it, and is taken for ours while it holds
nothing else: so a report is never mixed with files that somebody laid there.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from quantchat.errors import UserError
from quantchat.files import write_whole

LIST = ".quantchat-report"
"""Name of the list of what a folder of ours holds, a name on each line."""

_HEAD = 4096
"""Bytes from its beginning by which a file is known."""


def check_file(path: Path, ours: bytes, *, force: bool) -> None:
    """Raise UserError where `path` may not be written: `ours` is in the head of older reports."""
    try:
        mode = _mode(path)
        if mode is None:
            return
        if not stat.S_ISREG(mode):
            what = "is a folder" if stat.S_ISDIR(mode) else "is no regular file"
            raise UserError(what, where=str(path))
        with path.open("rb") as file:
            if not force and ours not in file.read(_HEAD):
                raise UserError(
                    "is there already and is no report",
                    where=str(path),
                    hint="name another file, or replace it with --force",
                )
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def check_folder(path: Path, *, force: bool) -> None:
    """Raise UserError where no report may be written into `path`."""
    try:
        mode = _mode(path)
        if mode is None:
            return
        if not stat.S_ISDIR(mode):
            raise UserError("is no folder", where=str(path))
        if not force and {entry.name for entry in os.scandir(path)} - {LIST, *_listed(path)}:
            raise UserError(
                "holds other files than a report's",
                where=str(path),
                hint="name another folder, or write among them with --force",
            )
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, through a link where it is one. Raises UserError."""
    try:
        write_whole(Path(os.path.realpath(path)), data)
    except OSError as error:
        raise _unwritable(path, error) from error


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make `path` a folder that holds `files`, by their names. Raises UserError.

    All are on the disk before the first has its name. What an older report left goes away.
    """
    there = path.is_dir()
    try:
        old = _listed(path) - set(files)
        names = "".join(f"{name}\n" for name in sorted({*old, *files}))
        work = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=path if there else path.parent))
        try:
            for name, data in {LIST: names.encode(), **files}.items():
                write_whole(work / name, data)
            if there:
                for name in (LIST, *files):
                    (work / name).replace(path / name)
                for name in old:
                    (path / name).unlink(missing_ok=True)
            else:
                work.rename(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _mode(path: Path) -> int | None:
    """What `path` is; None where it is not there yet, but can be. Raises OSError, ValueError."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise UserError("no such folder", where=str(path.parent)) from None
        return None


def _listed(folder: Path) -> set[str]:
    """Names of the files that an older report wrote into `folder` and that are still there."""
    try:
        names = (folder / LIST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    files = {entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)}
    return files.intersection(names)


def _unwritable(path: Path, error: Exception) -> UserError:
    reason = error.strerror if isinstance(error, OSError) else None
    return UserError(f"cannot be written: {reason or error}", where=str(path))
