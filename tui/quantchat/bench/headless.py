"""A comparison without a screen: load the pair, measure, record, end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from quantchat.bench.comparison import Change, Comparison, VariantChanged
from quantchat.bench.live_variant import LiveVariant, State
from quantchat.bench.measurement import Measurement
from quantchat.bench.record import record
from quantchat.bench.rounds import Plan
from quantchat.errors import ModelsFailed
from quantchat.host.signals import on_signals
from quantchat.metrics.sampler import DeviceSampler
from quantchat.snapshot.schema import Snapshot

_Result = TypeVar("_Result")


async def measure(
    comparison: Comparison,
    plan: Plan,
    *,
    on_variant: Callable[[LiveVariant], None] = lambda variant: None,
    on_step: Callable[[int, int, str], None] = lambda done, total, detail: None,
) -> Snapshot:
    """Load the shown pair of `comparison`, measure `plan` on it, end it; the snapshot of it all.

    Ctrl+C, SIGTERM and the end of the terminal stop the measurement (see `host.signals`); what was
    measured until then is in the snapshot. Where one of the two does not load, the other one is
    measured alone, and the snapshot says why. Raises ModelsFailed where neither loads,
    KeyboardInterrupt where it is stopped before anything was measured.
    """
    sampler = DeviceSampler()
    measurement = Measurement(comparison, plan, sampler, on_step)

    async def work() -> Snapshot:
        await measurement.run()
        if not measurement.measured and measurement.stopped:
            raise KeyboardInterrupt
        return record(comparison, sampler, measurement)

    try:
        return await with_pair(
            comparison,
            work,
            stop=measurement.stop,
            end=measurement.end,
            on_variant=on_variant,
            one_will_do=True,
        )
    finally:
        sampler.close()


async def with_pair(
    comparison: Comparison,
    work: Callable[[], Awaitable[_Result]],
    *,
    stop: Callable[[], None],
    end: Callable[[], None],
    on_variant: Callable[[LiveVariant], None] = lambda variant: None,
    one_will_do: bool = False,
) -> _Result:
    """Load the shown pair of `comparison`, do `work`, end the pair; what the work returned.

    `stop` is called on signals, and shall make the work end soon; `end` must, whatever the workers
    do. `one_will_do`: the work is done also where only one of the pair loads. Raises ModelsFailed
    where a variant that is needed does not load, else as `measure` does.
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
                raise ModelsFailed(failure.reason, where=failed[0].label, mend=failure.mend)
        changed.clear()
        await changed.wait()
