"""A narrow terminal shows a figure completely or not at all: cut off, it would be a wrong one."""

from __future__ import annotations

import pytest

from fakes.screen_reader import column, see, see_gone, see_in, wait_until
from fakes.scripted_app import Setup
from quantchat.session.live_variant import State


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


@pytest.mark.parametrize("size", [(60, 15), (80, 17), (60, 12)])
async def test_a_low_terminal_shows_the_live_figures_on_one_line(
    setup: Setup, size: tuple[int, int]
) -> None:
    setup.left.holds_after = setup.right.holds_after = 4
    async with setup.running(size) as run:
        await wait_until(
            run.pilot, lambda: all(v.state is State.READY for v in run.comparison.sides), "ready"
        )
        await run.ask()
        await see(run.pilot, "50.0 tok/s now TTFT 150 ms")
        setup.left.gate.set()
        setup.right.gate.set()
        await see(run.pilot, "50.0 tok/s TTFT 150 ms RAM 498 MiB")
        if size[0] == 60:
            await see(run.pilot, "ITL ms p50 20.0")
        await run.pilot.resize_terminal(size[0], 11)
        await see_gone(run.pilot, "50.0 tok/s TTFT")
        await run.pilot.resize_terminal(size[0], 24)
        await see(run.pilot, "weights 102 MiB")
