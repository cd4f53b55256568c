"""A paste is inserted as a whole, or rejected with a message that says why."""

from __future__ import annotations

import pytest
from textual import events
from textual.document._wrapped_document import WrappedDocument
from textual.widgets import Input, TextArea

from fakes.screen_reader import see, wait_until
from fakes.scripted_app import Setup
from quantchat.app import pasting
from quantchat.app.pasting import MAX_CHARACTERS


@pytest.fixture
def wrapped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many characters each call wrapped."""
    sizes: list[int] = []
    wrap_range, wrap = WrappedDocument.wrap_range, WrappedDocument.wrap

    def counted_range(document: WrappedDocument, *given: object) -> None:
        sizes.append(len(document.document.text))
        wrap_range(document, *given)  # type: ignore[arg-type]

    def counted(document: WrappedDocument, *given: object, **more: object) -> None:
        sizes.append(len(document.document.text))
        wrap(document, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(WrappedDocument, "wrap_range", counted_range)
    monkeypatch.setattr(WrappedDocument, "wrap", counted)
    return sizes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("words of prose\n" * 83_000, "1,245,000 characters"),
        ("a" * 1_250_000, "1,250,000 characters"),
        ("\n" * 40_000, "40,001 lines"),
    ],
)
async def test_what_is_too_long_leaves_the_prompt_as_it_was(
    setup: Setup, wrapped: list[int], text: str, told: str
) -> None:
    async with setup.running((80, 24)) as run:
        await run.ready()
        await run.pilot.press(*"draft")
        run.app.post_message(events.Paste(text))
        await see(run.pilot, "Not pasted")
        await see(run.pilot, told)
        await see(run.pilot, "--prompts")
        await run.pilot.press("x")
        await wait_until(run.pilot, lambda: run.screen.prompt.text == "draftx", "what was typed")
        assert max(wrapped) < 10


async def test_what_has_room_is_there_to_its_last_character(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pasting, "MAX_CHARACTERS", 100)
    async with setup.running() as run:
        await run.ready()
        box = run.screen.prompt
        run.app.post_message(events.Paste("a" * 100))
        await wait_until(run.pilot, lambda: box.text == "a" * 100, "all of it")
        run.app.post_message(events.Paste("b"))
        await see(run.pilot, "there is room for 0 of 100")
        box.select_all()
        run.app.post_message(events.Paste("\x1b" + "c" * 99))
        await wait_until(run.pilot, lambda: box.text == "␛" + "c" * 99, "what takes its place")
        box.select_all()
        run.app.post_message(events.Paste("\u202e" * 17))  # each is six characters as its mark
        await see(run.pilot, "102 characters")
        assert box.text == "␛" + "c" * 99
        monkeypatch.setattr(pasting, "MAX_LINES", 3)
        box.select_all()
        run.app.post_message(events.Paste("1\n2\n3"))
        await wait_until(run.pilot, lambda: box.text == "1\n2\n3", "three lines")
        run.app.post_message(events.Paste("\n"))
        await see(run.pilot, "The paste has 2 lines; there is room for 1 of 3")


async def test_a_box_of_one_line_takes_no_part_of_several(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("f2")
        await see(run.pilot, "system prompt")
        box = run.app.screen.query_one("#temperature", Input)
        box.focus()
        before = box.value
        run.app.post_message(events.Paste("1\n2\r\n3"))
        await see(run.pilot, "The paste has 3 lines; there is room for 1 of 1")
        assert box.value == before
        box.value = ""
        run.app.post_message(events.Paste("0.25\r\n"))
        await wait_until(run.pilot, lambda: box.value == "0.25", "the one line")


async def test_the_system_prompt_has_a_limit_too(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("f2")
        await see(run.pilot, "system prompt")
        system = run.app.screen.query_one("#system", TextArea)
        system.focus()
        before = system.text
        run.app.post_message(events.Paste("a" * (MAX_CHARACTERS + 1)))
        await see(run.pilot, f"{MAX_CHARACTERS + 1:,} characters")
        assert system.text == before


async def test_what_is_typed_has_the_same_limits(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pasting, "MAX_CHARACTERS", 5)
    monkeypatch.setattr(pasting, "MAX_LINES", 2)
    async with setup.running() as run:
        await run.ready()
        box = run.screen.prompt
        await run.pilot.press(*"abcdefgh")
        await see(run.pilot, "The box is full: it holds 5 characters.")
        await wait_until(run.pilot, lambda: box.text == "abcde", "what has room")
        assert len(run.app._notifications) == 1  # however many keys were too many
        await run.pilot.press("backspace", "backspace", "ctrl+j", "ctrl+j", "x")
        await see(run.pilot, "The box is full: it holds 2 lines.")
        await wait_until(run.pilot, lambda: box.text == "abc\nx", "what has room")
        box.select_all()
        await run.pilot.press("z")
        await wait_until(run.pilot, lambda: box.text == "z", "what takes the place of all of it")
