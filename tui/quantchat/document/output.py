"""Write a report as a file or a folder. Without `--force`, only an older report is replaced.

A report's folder contains a list of the files that were written into it. Such a folder is
overwritten only if it has no other files, so that a report never mixes with files of the user.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from quantchat.errors import UserError
from quantchat.files import write_whole

LIST = ".quantchat-report"
"""Name of the list of a folder's files, one name on a line."""

_HEAD = 4096
"""Bytes at the beginning of a file in which a report is recognised."""


def check_file(path: Path, ours: bytes, *, force: bool) -> None:
    """Raise UserError if `path` may not be written. The head of an older report contains `ours`."""
    try:
        mode = _mode(path)
        if mode is None:
            return
        if not stat.S_ISREG(mode):
            what = "is a folder" if stat.S_ISDIR(mode) else "is not a regular file"
            raise UserError(what, where=str(path))
        with path.open("rb") as file:
            if not force and ours not in file.read(_HEAD):
                raise UserError(
                    "exists and is not a report",
                    where=str(path),
                    hint="name another file, or replace this one with --force",
                )
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def check_folder(path: Path, *, force: bool) -> None:
    """Raise UserError if no report may be written into the folder `path`."""
    try:
        mode = _mode(path)
        if mode is None:
            return
        if not stat.S_ISDIR(mode):
            raise UserError("is not a folder", where=str(path))
        if not force and {entry.name for entry in os.scandir(path)} - {LIST, *_listed(path)}:
            raise UserError(
                "has files that do not belong to a report",
                where=str(path),
                hint="name another folder, or write into this one with --force",
            )
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, or if `path` is a link, to its target. Raises UserError."""
    try:
        write_whole(Path(os.path.realpath(path)), data, private=False)
    except OSError as error:
        raise _unwritable(path, error) from error


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make `path` a folder with `files` (name and content). Raises UserError.

    All files are written to a temporary folder before the first one is moved to `path`. Files of an
    older report are removed.
    """
    exists = path.is_dir()
    try:
        old = _listed(path) - set(files)
        names = "".join(f"{name}\n" for name in sorted({*old, *files}))
        work = (path if exists else path.parent) / f".{secrets.token_hex(8)}.tmp"
        work.mkdir()  # with the user's umask, unlike a folder of `tempfile`
        try:
            for name, data in {LIST: names.encode(), **files}.items():
                write_whole(work / name, data, private=False)
            if exists:
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
    """Return the mode of `path`, or None if it does not exist.

    Raises UserError if the parent folder does not exist, OSError, and ValueError.
    """
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise UserError("no such folder", where=str(path.parent)) from None
        return None


def _listed(folder: Path) -> set[str]:
    """Return the names of the files in `folder` that an older report wrote."""
    try:
        names = (folder / LIST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    files = {entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)}
    return files.intersection(names)


def _unwritable(path: Path, error: Exception) -> UserError:
    reason = error.strerror if isinstance(error, OSError) else None
    return UserError(f"cannot be written: {reason or error}", where=str(path))
