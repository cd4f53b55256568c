"""Copy a checkpoint from the cache to a folder that the user names, completely or not at all."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from quantchat.errors import UserError
from quantchat.text import one_line

MIB = 2**20


def check(target: Path, needed: int = 0) -> None:
    """Check that `target` is new or an empty folder, with `needed` bytes free on its disk.

    Raises UserError.
    """
    where = one_line(str(target))
    try:
        taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
        free = shutil.disk_usage(_nearest(target)).free
    except OSError as error:
        raise _cannot_write(target, error) from error
    if taken:
        raise UserError("already exists", where=where, hint="name a new or empty folder")
    if free < needed:
        raise UserError(
            f"the disk is too full: {needed // MIB} MiB are needed, {free // MIB} are free",
            where=where,
            hint="make room, or name a folder on another disk",
        )


def export(folder: Path, target: Path) -> None:
    """Copy the content of `folder` to `target`. Raises UserError."""
    check(target, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()))
    part = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, part)
        part.replace(target)  # replaces an empty folder
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _nearest(target: Path) -> Path:
    """Return the nearest existing folder: `target` itself or one of its parents."""
    return next(place for place in (target, *target.absolute().parents) if place.is_dir())


def _cannot_write(target: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot be written: {error.strerror or error}",
        where=one_line(str(error.filename or target)),
    )
