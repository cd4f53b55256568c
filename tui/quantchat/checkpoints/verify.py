"""Verify the SHA-256 of cached artifacts, to find bits that the disk has flipped.

The cache compares file sizes at each use, which finds truncated files only. This module compares
each file's SHA-256 with that in `made.json`: in each run for artifacts up to `SMALL` bytes (less
than a second), and once per `EVERY_S` seconds for larger artifacts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from quantchat.checkpoints.cache import BuiltCheckpoint
from quantchat.files import add_to_hash

SMALL = 2**30
"""Size in bytes up to which an artifact is verified in each run."""

EVERY_S = 7 * 24 * 3600.0
"""Seconds between two verifications of a larger artifact."""

STAMP = ".verified"
"""An empty file in the artifact, whose modification time is that of the last verification."""
_PIECE = 16 * 2**20
"""Bytes that are read between two points at which the task can be cancelled."""


def size(built: BuiltCheckpoint) -> int:
    """Return the size of the artifact's files in bytes."""
    return sum(recorded.bytes for recorded in built.files.values())


def is_due(folder: Path, built: BuiltCheckpoint) -> bool:
    """Return whether the artifact in `folder` must be verified before it is used."""
    if size(built) <= SMALL:
        return True
    try:
        return time.time() - (folder / STAMP).stat().st_mtime > EVERY_S
    except OSError:
        return True


async def first_damaged(
    folder: Path, built: BuiltCheckpoint, report: Callable[[int], None] = lambda done: None
) -> str | None:
    """Return the name of the first file in `folder` whose hash differs from `built`, or None.

    Calls `report` with the bytes read so far. Can be cancelled at any time. Raises OSError.
    """
    done = 0
    for name, recorded in built.files.items():
        digest = hashlib.sha256()
        with (folder / name).open("rb") as stream:
            # Each piece is read in a separate thread call, so an exit waits for one piece at most.
            while read := await asyncio.to_thread(add_to_hash, stream, digest, _PIECE):
                done += read
                report(done)
        if digest.hexdigest() != recorded.sha256:
            return name
    with contextlib.suppress(OSError):  # in a read-only cache each run verifies
        (folder / STAMP).touch(mode=0o600)
    return None
