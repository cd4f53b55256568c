"""No full garbage collection while something streams."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from fakes.screen_reader import see, wait_until
from fakes.scripted_app import Setup
from quantchat.app import gc_tuning


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gc_tuning, "_started", False)
    before = gc.get_threshold()
    gc_tuning.start()
    assert gc.get_threshold() == (*before[:2], gc_tuning.FULL_AFTER)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


async def test_what_is_there_is_passed_over_from_quiet_moments_on(setup: Setup, ours: None) -> None:
    gc.unfreeze()
    async with setup.running() as run:
        await run.ready()
        await wait_until(run.pilot, lambda: gc.get_freeze_count() > 10_000, "a quiet moment")
        gc.unfreeze()
        setup.left.holds_after = setup.right.holds_after = 2
        await run.ask()
        await see(run.pilot, "The capital")  # so that the screen has seen it stream
        assert gc.get_freeze_count() == 0
        setup.left.gate.set()
        setup.right.gate.set()
        await wait_until(run.pilot, lambda: gc.get_freeze_count() > 10_000, "the next one")


def test_garbage_among_it_is_found_the_next_time(ours: None) -> None:
    class Node:
        other: Node

    one = Node()
    one.other = Node()
    one.other.other = one
    gc_tuning.collect_while_idle()
    found = []
    gc.callbacks.append(lambda phase, told: found.append(told["collected"]))
    try:
        del one
        gc_tuning.collect_while_idle()
    finally:
        gc.callbacks.pop()
    assert max(found) >= 2


def test_a_program_that_did_not_start_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_tuning, "_started", False)
    gc.unfreeze()
    gc_tuning.collect_while_idle()
    assert gc.get_freeze_count() == 0
