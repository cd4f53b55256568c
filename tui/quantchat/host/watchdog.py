"""A watchdog that checks regularly whether workers still respond."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

LOOK_S = 1.0
"""Seconds between two checks."""

LATE_S = 5.0
"""A longer time between two checks, in s, means that this process was stopped, e.g. by Ctrl+Z."""


@contextlib.asynccontextmanager
async def watchdog(
    look: Callable[[float], None], excuse: Callable[[float], None]
) -> AsyncIterator[None]:
    """Call `look(now)` every `LOOK_S` within this context; `now` is from the monotonic clock, in s.

    After a time in which this process did not run, call `excuse(now)` instead: messages that the
    worker sent meanwhile are not read yet, so its silence counts from now.
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
