"""Random keys in quick succession and terminals of any size do not crash the program.

A sample of the random keys of `benchmarks/random_keys.py`, which presses tens of thousands, and the
key sequences that once ended the program.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events

from fakes.random_keys import on_the_comparison, on_the_start
from fakes.screen_reader import see, wait_until
from fakes.scripted_app import Setup
from quantchat.app.screens.pair import PairScreen

KEYS = 250


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
async def test_on_the_comparison_nothing_ends_the_program(tmp_path: Path, seed: int) -> None:
    assert len(await on_the_comparison(tmp_path, seed, KEYS)) > 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_on_the_start_nothing_ends_the_program(tmp_path: Path, seed: int) -> None:
    assert await on_the_start(tmp_path, seed, KEYS)


async def test_two_quick_enters_leave_the_pair_dialog_once(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("ctrl+o")
        await wait_until(run.pilot, lambda: isinstance(run.app.screen, PairScreen), "the dialog")
        await wait_until(run.pilot, lambda: run.app.focused is not None, "the cursor in it")
        for _ in range(3):
            run.app.post_message(events.Key("enter", "\r"))
        await wait_until(run.pilot, lambda: run.app.screen is run.screen, "the comparison")
        await run.answered()


@pytest.mark.parametrize(
    "action", ["ask_file", "settings", "pair", "search", "measure", "agreement", "log"]
)
async def test_a_dialog_that_is_closed_while_it_opens_raises_nothing(
    setup: Setup, action: str
) -> None:
    async with setup.running() as run:
        await run.ready()
        getattr(run.screen, f"action_{action}")()
        assert run.app.screen is not run.screen
        run.app.screen.dismiss()
        await run.answered()


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
async def test_a_terminal_of_a_few_columns_ends_nothing(setup: Setup, columns: int) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        for rows in (45, 2, 1):
            await run.pilot.resize_terminal(columns, rows)
            await run.pilot.pause()
        await run.pilot.resize_terminal(120, 40)
        await see(run.pilot, "Paris")
