"""Runs work on a comparison without a screen: load the pair, do the work, end the pair."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from quantchat.errors import ModelsFailed
from quantchat.host.signals import on_signals
from quantchat.session.comparison import Change, Comparison, VariantChanged
from quantchat.session.live_variant import LiveVariant, State

_Result = TypeVar("_Result")


async def with_pair(
    comparison: Comparison,
    work: Callable[[], Awaitable[_Result]],
    *,
    stop: Callable[[], None],
    end: Callable[[], None],
    on_variant: Callable[[LiveVariant], None] = lambda variant: None,
    one_will_do: bool = False,
) -> _Result:
    """Load the shown pair of `comparison`, do `work`, end the pair; return the work's result.

    `stop` is called on signals, and shall make the work end soon; `end` must, whatever the workers
    do. `one_will_do`: the work is done also where only one of the pair loads. Raises ModelsFailed
    where a variant that is needed does not load, KeyboardInterrupt
    where it is stopped while they load.
    """
    changed = asyncio.Event()
    stopped = asyncio.Event()

    def heard(change: Change) -> None:
        changed.set()
        if isinstance(change, VariantChanged):
            on_variant(change.variant)

    def halt() -> None:
        stopped.set()
        changed.set()
        stop()

    comparison.on_change = heard
    try:
        with on_signals(halt, end):
            comparison.open()
            async with comparison.silent_sides_ended():
                await _loaded(comparison, changed, stopped, one_will_do=one_will_do)
            return await work()
    finally:
        await comparison.close()


async def _loaded(
    comparison: Comparison, changed: asyncio.Event, stopped: asyncio.Event, *, one_will_do: bool
) -> None:
    """Wait until both sides are ready, or with `one_will_do` one is and the other failed."""
    while True:
        if stopped.is_set():
            raise KeyboardInterrupt
        sides = comparison.sides
        failed = [variant for variant in sides if variant.state is State.FAILED]
        ready = sum(variant.state is State.READY for variant in sides)
        if ready == len(sides) or (ready and one_will_do and ready + len(failed) == len(sides)):
            return
        if failed and (not one_will_do or len(failed) == len(sides)):
            failure = failed[0].failure
            if failure is not None:
                raise ModelsFailed(failure.reason, where=failed[0].label, hint=failure.hint)
        changed.clear()
        await changed.wait()
