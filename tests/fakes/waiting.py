"""Waits for a condition, with the tests' common time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 60.0
"""Time limit in s, much longer than anything takes: only a failing test reaches it."""


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` is true, for at most `PATIENCE_S`."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), PATIENCE_S)


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait, without an event loop, until `condition` is true, for at most `PATIENCE_S`."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
