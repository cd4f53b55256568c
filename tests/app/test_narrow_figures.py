"""A narrow terminal shows a figure completely or not at all: cut off, it would be a wrong one."""

from __future__ import annotations

from fakes.screen_reader import column, see_in
from fakes.scripted_app import Setup


async def test_latencies_are_not_cut(setup: Setup) -> None:
    setup.left.token_ms, setup.right.token_ms = 1204.0, 12045.0
    setup.left.ttft_ms = setup.right.ttft_ms = 20_000.0
    async with setup.running((72, 24)) as run:
        await run.ready()
        await run.ask()
        await run.settled()
        await see_in(run.pilot, 0, "ITL ms p50 1204 p95 1204 p99 1204")
        await see_in(run.pilot, 1, "ITL ms p50 12045 p95 12045")
        assert "p99" not in column(run.app, 1)
        await run.pilot.resize_terminal(120, 40)
        await see_in(run.pilot, 1, "ITL p50 12045 p95 12045 p99 12045 ms")
