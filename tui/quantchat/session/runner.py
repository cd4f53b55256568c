"""Runs work on a comparison without a screen: load the pair, do the work, end the workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
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
    one_is_enough: bool = False,
) -> _Result:
    """Load the shown pair of `comparison`, do `work`, end the workers; return the work's result.

    The first Ctrl+C or termination signal calls `stop`, which asks the work to end soon. The second
    one calls `end`, which ends the work whatever the workers do. `on_variant` is called when the
    state or progress of a variant changes. With `one_is_enough`, the work is done even if only one
    variant of the pair loads. Raises ModelsFailed if a needed variant does not load,
    KeyboardInterrupt if a signal arrives while variants load.
    """
    stopped = asyncio.Event()

    def halt() -> None:
        stopped.set()
        stop()

    with on_signals(halt, end):
        async with loaded_comparison(
            comparison, stopped, on_variant=on_variant, one_is_enough=one_is_enough
        ):
            return await work()


@contextlib.asynccontextmanager
async def loaded_comparison(
    comparison: Comparison,
    stopped: asyncio.Event | None = None,
    *,
    on_variant: Callable[[LiveVariant], None] = lambda variant: None,
    one_is_enough: bool = False,
) -> AsyncIterator[None]:
    """Load the shown variants of `comparison` for this context, then end them.

    Raises ModelsFailed as `with_pair` does, KeyboardInterrupt if `stopped` is set while they load.
    """
    stopped = stopped or asyncio.Event()
    changed = asyncio.Event()

    def on_change(change: Change) -> None:
        changed.set()
        if isinstance(change, VariantChanged):
            on_variant(change.variant)

    comparison.on_change = on_change
    try:
        comparison.open()
        async with comparison.ending_unresponsive_sides():
            await _all_ready(comparison, changed, stopped, one_is_enough=one_is_enough)
        yield
    finally:
        await comparison.close()


async def _all_ready(
    comparison: Comparison, changed: asyncio.Event, stopped: asyncio.Event, *, one_is_enough: bool
) -> None:
    """Wait until both sides are ready; with `one_is_enough`, one is enough if the other failed."""
    halted = asyncio.ensure_future(stopped.wait())
    try:
        while True:
            if stopped.is_set():
                raise KeyboardInterrupt
            sides = comparison.sides
            failed = [variant for variant in sides if variant.state is State.FAILED]
            ready = sum(variant.state is State.READY for variant in sides)
            if ready == len(sides) or (
                ready and one_is_enough and ready + len(failed) == len(sides)
            ):
                return
            if failed and (not one_is_enough or len(failed) == len(sides)):
                failure = failed[0].failure
                if failure is not None:
                    raise ModelsFailed(failure.reason, where=failed[0].label, hint=failure.hint)
            changed.clear()
            change = asyncio.ensure_future(changed.wait())
            await asyncio.wait([change, halted], return_when=asyncio.FIRST_COMPLETED)
            change.cancel()
    finally:
        halted.cancel()
