"""Looking now and then whether a worker still responds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

LOOK_S = 1.0
"""How often it is looked, in seconds."""

LATE_S = 5.0
"""Seconds between two looks from which on this process was itself stopped, as by Ctrl+Z."""


@contextlib.asynccontextmanager
async def watchdog(
    look: Callable[[float], None], excuse: Callable[[float], None]
) -> AsyncIterator[None]:
    """Call `look(now)` every `LOOK_S` until the context ends; `now` is the monotonic clock's, in s.

    After a time in which this process did not run, `excuse(now)` is called instead: what the
    worker sent meanwhile could not be read, and its silence counts from now.
    """

    async def watch() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            (excuse if now - last > LATE_S else look)(now)
            last = now

    task = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
