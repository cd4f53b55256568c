"""The dialog of the settings: what is typed, checked, recommended and sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from textual.widgets import Input, TextArea

from fakes.screen_reader import see, text, wait_until
from fakes.scripted_app import LEFT, RIGHT, Running, Setup
from fakes.scripted_worker import Script
from quantchat.wire.messages import Generate


def generated(run: Running) -> list[Generate]:
    return [command for command in run.left.commands if isinstance(command, Generate)]


def inputs(run: Running, *names: str) -> list[Input]:
    return [run.app.screen.query_one(f"#{name}", Input) for name in names]


def recommend(side: Script, **settings: float) -> None:
    side.model_info = replace(
        side.model_info, recommended=settings, recommended_by="generation_config.json"
    )


async def test_settings_are_checked_and_sent(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("f2")
        await see(run.pilot, "Settings")
        run.app.screen.query_one("#system", TextArea).text = "Be [bold]brief[/bold]."
        temperature = run.app.screen.query_one("#temperature", Input)
        temperature.value = "warm"
        temperature.focus()
        await run.pilot.press("enter")
        await see(run.pilot, "temperature: 'warm' is not a number")
        temperature.value = "11"
        await run.pilot.press("enter")
        await see(run.pilot, "temperature: 11.0 is out of range (must be less than or equal to 10)")
        temperature.value = "0.7"
        run.app.screen.query_one("#top_k", Input).value = "40"
        run.app.screen.query_one("#max_new_tokens", Input).value = "3"
        await run.pilot.press("enter")
        await wait_until(run.pilot, lambda: run.app.screen is run.screen)
        await run.answered()
        request = generated(run)[-1]
        assert request.sampling.temperature == 0.7 and request.sampling.top_k == 40
        assert request.max_new_tokens == 3
        assert request.messages[0].content == "Be [bold]brief[/bold]."


async def test_stop_strings_and_biases_are_typed_as_in_a_profile(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("f2")
        await see(run.pilot, "Settings")
        stop, bias = inputs(run, "stop", "logit_bias")
        stop.value = "User:"
        stop.focus()
        await run.pilot.press("enter")
        await see(run.pilot, 'stop: write it as in a profile, e.g. "User:", "\\n\\n"')
        stop.value, bias.value = r'"User:", "\n\n"', "x = 3"
        await run.pilot.press("enter")
        await see(run.pilot, "logit bias: must be the id of a token, such as 198")
        bias.value = "{198 = -100.0}"
        run.app.screen.query_one("#max_thinking_tokens", Input).value = "64"
        await run.pilot.press("enter")
        await wait_until(run.pilot, lambda: run.app.screen is run.screen)
        await run.answered()
        sampling = generated(run)[-1].sampling
        assert sampling.stop == ["User:", "\n\n"]
        assert sampling.logit_bias == {"198": -100.0}
        assert sampling.max_thinking_tokens == 64
        await run.pilot.press("f2")
        await see(run.pilot, r'"User:", "\n\n"')
        await see(run.pilot, "198 = -100.0")


async def test_an_answer_that_a_stop_string_ended_says_so(setup: Setup) -> None:
    setup.left.reason = "stop_string"
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await see(run.pilot, "ended at a stop string")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_what_the_models_recommend_is_one_key_away(
    setup: Setup, size: tuple[int, int]
) -> None:
    """Only what differs from the settings, with the file that says it and the models."""
    recommend(setup.left, temperature=0.6, top_k=20.0, top_p=1.0)
    recommend(setup.right, temperature=0.7)
    async with setup.running(size) as run:
        await run.ready()
        await run.pilot.press("f2")
        left = f"generation_config.json of {LEFT}: temperature 0.6, top k 20"
        right = f"generation_config.json of {RIGHT}: temperature 0.7"
        for shown in (left, right, "^R: recommended", "system prompt", "logit bias"):
            await see(run.pilot, shown)
        temperature, top_k = inputs(run, "temperature", "top_k")
        await run.pilot.press("ctrl+r")
        assert (temperature.value, top_k.value) == ("0.6", "20")
        await see(run.pilot, f"Filled in from the generation_config.json of {LEFT}.")
        await run.pilot.press("ctrl+r")
        assert temperature.value == "0.7"
        await run.pilot.press("ctrl+r", "ctrl+s")
        await wait_until(run.pilot, lambda: run.app.screen is run.screen)
        await run.answered()
        assert generated(run)[-1].sampling.temperature == 0.6
        assert generated(run)[-1].sampling.top_k == 20


async def test_nothing_is_recommended_where_the_settings_agree_with_the_models(
    setup: Setup,
) -> None:
    recommend(setup.left, temperature=0.0)
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("f2")
        await see(run.pilot, "Settings")
        assert "recommended" not in text(run.app)


async def test_escape_leaves_the_settings_as_they_were(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        before = run.comparison.generation
        await run.pilot.press("f2")
        await see(run.pilot, "Settings")
        run.app.screen.query_one("#seed", Input).value = "7"
        await run.pilot.press("escape")
        await wait_until(run.pilot, lambda: run.app.screen is run.screen)
        assert run.comparison.generation is before
