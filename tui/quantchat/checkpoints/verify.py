"""Whether an artifact of the cache still holds the bytes that were made: a disk may lose a bit.

Sizes are looked at each time an artifact is wanted, and that tells a file that is cut short. Only
its SHA-256, kept in `made.json`, tells that a bit has flipped: up to `SMALL` bytes it is worked out
each time (below a second), and of larger artifacts once in `EVERY_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from quantchat.checkpoints.cache import BuiltCheckpoint
from quantchat.files import take

SMALL = 2**30
EVERY_S = 7 * 24 * 3600.0
STAMP = ".verified"
"""An empty file in the artifact, last changed when it was last verified."""
_STRETCH = 16 * 2**20
"""Bytes read between two looks at whether to go on."""


def size(made: BuiltCheckpoint) -> int:
    """Bytes that verifying it reads."""
    return sum(int(told["bytes"]) for told in made.files.values())


def is_due(folder: Path, made: BuiltCheckpoint) -> bool:
    """Whether the artifact in `folder` is to be verified before it is used."""
    if size(made) <= SMALL:
        return True
    try:
        return time.time() - (folder / STAMP).stat().st_mtime > EVERY_S
    except OSError:
        return True


async def first_damaged(
    folder: Path, made: BuiltCheckpoint, tell: Callable[[int], None] = lambda done: None
) -> str | None:
    """The first file in `folder` that is not what `made` says; None where all are.

    `tell` is called with the bytes read so far. May be cancelled at any time. Raises OSError.
    """
    done = 0
    for name, told in made.files.items():
        digest = hashlib.sha256()
        with (folder / name).open("rb") as stream:
            # By stretches, each in a thread: an end of the program waits for no more than one.
            while read := await asyncio.to_thread(take, stream, digest, _STRETCH):
                done += read
                tell(done)
        if digest.hexdigest() != told["sha256"]:
            return name
    with contextlib.suppress(OSError):  # a cache that is read only is verified each time
        (folder / STAMP).touch(mode=0o600)
    return None
