"""Help says why a figure is shown as "–"."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.screen_reader import see, text
from fakes.scripted_app import LEFT, RIGHT, SIZES, Setup
from fakes.scripted_machine import GPU, ScriptedMachine
from quantchat.app.app import QuantchatApp


@pytest.mark.parametrize("size", SIZES)
async def test_no_driver_is_named_as_the_reason(setup: Setup, size: tuple[int, int]) -> None:
    async with setup.running(size) as run:
        await run.ready()
        await see(run.pilot, "611 MiB")
        await run.pilot.press("f1", "end")
        await see(run.pilot, "Unknown figures and why")
        await see(run.pilot, "no driver")
        assert f"{RIGHT}: " not in text(run.app)  # its memory is known


@pytest.mark.parametrize("size", SIZES)
async def test_each_figure_that_a_gpu_does_not_tell_has_its_reason(
    setup: Setup, size: tuple[int, int]
) -> None:
    does_not_tell = "this GPU or driver does not report it"
    setup.gpus = (
        replace(
            GPU,
            power_w=None,
            temperature_c=None,
            memory_used=None,
            missing={
                "power_w": does_not_tell,
                "temperature_c": does_not_tell,
                "memory_used": "the GPU is lost",
            },
        ),
    )
    setup.left.process = -1
    async with setup.running(size) as run:
        await run.ready()
        await see(run.pilot, "RAM 611 MiB")
        await run.pilot.press("f1", "end")
        await see(run.pilot, f"power, temperature: {does_not_tell}")
        await see(run.pilot, "memory: the GPU is lost")
        await see(run.pilot, f"{LEFT}: not known: not scripted")


async def test_at_the_start_only_what_works_there_is_listed(setup: Setup) -> None:
    app = QuantchatApp(None, snapshots=setup.folder, make_sampler=ScriptedMachine)
    async with app.run_test(size=(80, 50)) as pilot:
        await see(pilot, "Profiles")
        await pilot.press("f1")
        await see(pilot, "asks for a second press")
        await see(pilot, "Find a command by its name")
        assert "Send the prompt to both variants" not in text(app)


async def test_where_all_is_known_nothing_is_said(setup: Setup) -> None:
    setup.gpus = (GPU,)
    async with setup.running() as run:
        await run.ready()
        await see(run.pilot, "611 MiB")
        await run.pilot.press("f1", "end")
        await see(run.pilot, "not known; never 0")
        assert "Unknown figures and why" not in text(run.app)
