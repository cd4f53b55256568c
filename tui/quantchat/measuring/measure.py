"""Measure a comparison without the screen of the app."""

from __future__ import annotations

from collections.abc import Callable

from quantchat.measuring.measurement import Measurement
from quantchat.measuring.record import record_measurement
from quantchat.measuring.rounds import Plan
from quantchat.session.comparison import Comparison
from quantchat.session.live_variant import LiveVariant
from quantchat.session.runner import with_pair
from quantchat.snapshot.schema import Snapshot
from quantchat.system.sampler import DeviceSampler


async def measure(
    comparison: Comparison,
    plan: Plan,
    *,
    on_variant: Callable[[LiveVariant], None] = lambda variant: None,
    on_step: Callable[[int, int, str], None] = lambda done, total, detail: None,
) -> Snapshot:
    """Load both sides of `comparison`, measure `plan`, end the workers; return the snapshot.

    Ctrl+C, SIGTERM and the end of the terminal stop the measurement (see `host.signals`); the
    snapshot then has the turns so far. If only one variant loads, it is measured alone, and the
    snapshot says why. `on_variant` is called when a variant changes, and `on_step(done, total,
    detail)` before each turn and at the end. Raises ModelsFailed if neither variant loads,
    KeyboardInterrupt if the measurement is stopped before its first turn is complete.
    """
    sampler = DeviceSampler()
    measurement = Measurement(comparison, plan, sampler, on_step)

    async def work() -> Snapshot:
        await measurement.run()
        if not measurement.measured and measurement.stopped:
            raise KeyboardInterrupt
        return record_measurement(comparison, sampler, measurement)

    try:
        return await with_pair(
            comparison,
            work,
            stop=measurement.stop,
            end=measurement.end,
            on_variant=on_variant,
            one_is_enough=True,
        )
    finally:
        sampler.close()
