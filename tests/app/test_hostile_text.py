"""Text from any outside source has no effect on the terminal."""

from __future__ import annotations

import asyncio
import unicodedata
from dataclasses import asdict, replace
from typing import Any

import pytest
from rich.segment import Segment
from rich.style import Style
from textual.color import Color

from fakes.screen_reader import lines, see, see_in, wait_until
from fakes.scripted_app import DEMO, Running, Setup
from fakes.scripted_worker import model_info
from quantchat.app.textual_workarounds import ControlGuard
from quantchat.profile.model import Profile
from quantchat.wire.messages import Failed, Progress

EVIL = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\u202eolleh\u2066[red]x[/red][/] [@click=app.quit]y[/]"
SEEN = "␛]52;c;ZXZpbA==␇␛[2J⟨9B⟩31m⟨202E⟩olleh⟨2066⟩[red]x[/red][/]"

BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


def clean(run: Running) -> None:
    for line in lines(run.app):
        controls = [c for c in line if unicodedata.category(c) in ("Cc", "Cs")]
        assert not controls, (controls, line)
        assert not BIDI & set(line)


async def test_an_answer(setup: Setup) -> None:
    evil = f"{EVIL}\n\n```\n{EVIL}\n```\n\n| a |\n| --- |\n| {EVIL} |\n\n# {EVIL}\n\n`{EVIL}`"
    setup.left.answer = lambda request: evil
    setup.left.holds_after = 5
    async with setup.running((200, 50)) as run:
        await run.ready()
        await run.ask()
        await see_in(run.pilot, 0, SEEN)
        clean(run)
        run.left.gate.set()
        await run.settled()
        await see_in(run.pilot, 0, SEEN)
        clean(run)
        assert (
            run.comparison.conversation.turns[0].answers[run.comparison.sides[0].label].text == evil
        )


async def test_controls_that_markdown_itself_would_make(setup: Setup) -> None:
    # An entity, and what a bare address has encoded, are characters only once they are parsed.
    said = "1 &#x202E;a &#13;b &#8203;c http://d.example/%1B%07 ![&rlm;e](f) [&shy;g](h) end"
    setup.left.answer = lambda request: said
    async with setup.running((200, 50)) as run:
        await run.ready()
        await run.answered()
        await see_in(run.pilot, 0, "1 ⟨202E⟩a ␍b ⟨200B⟩c http://d.example/␛␇")
        await see_in(run.pilot, 0, "⟨200F⟩e ⟨00AD⟩g end")
        clean(run)


async def test_a_control_cut_in_two_by_the_tokens(setup: Setup) -> None:
    setup.left.answer = lambda request: "a \x1b ]52;c; x\x07 b"
    setup.left.holds_after = 4
    async with setup.running() as run:
        await run.ready()
        await run.ask()
        await see_in(run.pilot, 0, "a ␛ ]52;c;")
        clean(run)


async def test_a_prompt(setup: Setup) -> None:
    async with setup.running((200, 50)) as run:
        await run.ready()
        await run.answered(EVIL)
        await see_in(run.pilot, 0, SEEN)
        clean(run)


async def test_what_a_worker_says_of_itself(setup: Setup) -> None:
    runs = model_info()
    texts: dict[str, Any] = {
        name: EVIL for name, value in asdict(runs).items() if isinstance(value, str)
    }
    setup.left.model_info = replace(runs, **{**texts, "engine": runs.engine})
    setup.left.note = EVIL
    setup.right.loading = [Progress(EVIL, 1, 2, EVIL)]
    setup.right.loading_gate = asyncio.Event()
    async with setup.running((200, 50)) as run:
        await see_in(run.pilot, 0, SEEN)
        await see_in(run.pilot, 1, SEEN[:30])
        clean(run)


async def test_failures(setup: Setup) -> None:
    setup.left.loading_fails = Failed("internal", EVIL, EVIL)
    setup.right.answer_fails = Failed("internal", EVIL, EVIL)
    async with setup.running((200, 50)) as run:
        await see_in(run.pilot, 0, SEEN)
        await see(run.pilot, "● ready")
        await run.answered()
        await see_in(run.pilot, 1, SEEN)
        clean(run)


@pytest.mark.parametrize("size", [(66, 24), (200, 50)])
async def test_labels_and_names(setup: Setup, size: tuple[int, int]) -> None:
    # A profile refuses control characters; markup and bidi controls are text like any other.
    setup.profile = Profile.model_validate(
        {
            "name": "[red]n\u202e[/]",
            "variants": [
                {"label": "[b]l\u202e[/nope]", "engine": "gptq", "model": DEMO},
                {"label": "[$error]r\u2066", "engine": "bitsandbytes", "model": DEMO},
            ],
        }
    )
    async with setup.running(size) as run:
        await run.ready()
        await see(run.pilot, "[b]l⟨202E⟩[/nope]")
        await see(run.pilot, "quantchat [red]n⟨2")
        await run.answered()
        clean(run)
        for key in ("ctrl+o", "alt+l"):
            await run.pilot.press(key)
            await wait_until(run.pilot, lambda: run.app.screen is not run.screen, "the dialog")
            await see(run.pilot, "[b]l⟨202E⟩[/nope]")
            clean(run)
            await run.pilot.press("escape")
            await wait_until(run.pilot, lambda: run.app.screen is run.screen, "its end")
        await run.pilot.press("f5")
        await see(run.pilot, "[b]l⟨202E⟩[/nope]: ")


def test_the_last_guard_takes_controls_out_and_keeps_the_width() -> None:
    evil = [Segment("a\x1b]0;t\x07"), Segment("\u202eb"), Segment("c")]
    guarded = ControlGuard().apply(evil, Color(0, 0, 0))
    assert [segment.text for segment in guarded] == ["a]0;t", "b", "c"]
    linked = [Segment("d", Style(link="https://e.example/", bold=True))]
    (bare,) = ControlGuard().apply(linked, Color(0, 0, 0))
    assert bare.style == Style(bold=True)
    good = [Segment("日本 👩‍👩‍👧 ok")]
    assert ControlGuard().apply(good, Color(0, 0, 0)) is good


async def test_the_guard_is_in_force_for_every_widget(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        run.app.notify("raw \x1b]0;evil\x07", markup=False)
        await see(run.pilot, "raw ]0;evil")
        clean(run)
