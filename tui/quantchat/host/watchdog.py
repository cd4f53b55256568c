"""Run a check at regular intervals, for example whether workers still respond."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

CHECK_S = 1.0
"""Seconds between two checks."""

LATE_S = 5.0
"""A longer time between two checks, in s, means that this process was stopped, e.g. by Ctrl+Z."""


@contextlib.asynccontextmanager
async def checking(every_s: float, check: Callable[[float, float], None]) -> AsyncIterator[None]:
    """Call `check(now, passed)` every `every_s` within this context.

    Both are in s: `now` is from the monotonic clock, `passed` is the time since the last check, or
    since the start.
    """

    async def repeat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(every_s)
            now = time.monotonic()
            check(now, now - last)
            last = now

    task = asyncio.ensure_future(repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def watchdog(
    check: Callable[[float], None], reset: Callable[[float], None]
) -> AbstractAsyncContextManager[None]:
    """Call `check(now)` every `CHECK_S` within this context.

    `now` is from the monotonic clock, in s.

    After a time in which this process did not run, calls `reset(now)` instead. Messages that a
    worker sent during that time are not read yet, so its silence must be measured from `now`.
    """
    return checking(CHECK_S, lambda now, passed: (reset if passed > LATE_S else check)(now))
