"""Waits for a condition, with the tests' common time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 60.0
"""Far longer than anything takes, on a busy machine too: only a test that fails waits for it."""


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds, for `PATIENCE_S` at most."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), PATIENCE_S)
