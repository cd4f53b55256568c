"""The prompt box: several lines, recall of prompts without losing the draft, pasting."""

from __future__ import annotations

import pytest
from textual import events
from textual._xterm_parser import XTermParser

from fakes.screen_reader import lines, see, see_in, wait_until
from fakes.scripted_app import Running, Setup
from quantchat.app.textual_workarounds import map_alt_enter
from quantchat.wire.messages import Generate


def sent(run: Running) -> list[str]:
    return [turn.prompt for turn in run.comparison.conversation.turns]


@pytest.mark.parametrize("newline", ["ctrl+j", "shift+enter", "alt+enter", "shift+\r"])
async def test_several_lines_are_sent_as_one_prompt(setup: Setup, newline: str) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press(*"one")
        if newline == "shift+\r":  # xterm's own, whose name the pilot cannot press
            run.screen.prompt.post_message(events.Key(newline, None))
            await run.pilot.pause()
        else:
            await run.pilot.press(newline)
        await run.pilot.press(*"two")
        await see(run.pilot, "one")
        prompt = run.screen.prompt
        await wait_until(run.pilot, lambda: prompt.text == "one\ntwo" and prompt.size.height == 2)
        await run.pilot.press("enter")
        await wait_until(run.pilot, lambda: sent(run) == ["one\ntwo"])
        await wait_until(run.pilot, lambda: prompt.text == "" and prompt.size.height == 1)


@pytest.mark.parametrize(
    ("sequence", "key"),
    [
        ("\r", "enter"),
        ("\n", "ctrl+j"),
        ("\x1b\r", "ctrl+j"),  # Alt+Enter of a terminal without the kitty protocol
        ("\x1b[13;2u", "shift+enter"),
        ("\x1b[13;3u", "alt+enter"),
        ("\x1b[27;2;13~", "shift+\r"),
    ],
)
def test_terminals_deliver_the_keys_that_the_prompt_knows(sequence: str, key: str) -> None:
    map_alt_enter()
    parser = XTermParser()
    pressed = [*parser.feed(sequence), *parser.feed("")]
    assert [event.key for event in pressed if isinstance(event, events.Key)] == [key]


async def test_the_box_grows_and_then_scrolls(setup: Setup) -> None:
    async with setup.running((80, 24)) as run:
        await run.ready()
        for _ in range(20):
            await run.pilot.press("x", "ctrl+j")
        prompt = run.screen.prompt
        await wait_until(run.pilot, lambda: prompt.size.height == 8, "its full height")
        await run.pilot.press(*"end")
        await wait_until(run.pilot, lambda: any("end" in line for line in lines(run.app)))


async def test_recall_walks_through_what_was_sent_and_keeps_the_draft(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered("first")
        await run.answered("second\nof two lines")
        box = run.screen.prompt
        await run.pilot.press(*"draft", "up")
        assert box.text == "second\nof two lines"
        await run.pilot.press("up")  # within the two lines
        assert box.text == "second\nof two lines" and box.cursor_location[0] == 0
        await run.pilot.press("up")
        assert box.text == "first"
        await run.pilot.press("up")
        assert box.text == "first"
        await run.pilot.press("down", "down")
        assert box.text == "draft"
        await run.pilot.press("down")
        assert box.text == "draft"
        await run.pilot.press("up", "up", "up", "enter")
        await wait_until(run.pilot, lambda: sent(run)[-1] == "first")


async def test_an_empty_prompt_is_not_sent(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("enter", "space", "ctrl+j", "enter")
        assert sent(run) == []


async def test_what_is_typed_right_after_enter_is_the_next_prompt(setup: Setup) -> None:
    setup.left.holds_after = setup.right.holds_after = 1
    async with setup.running() as run:
        await run.ready()
        box = run.screen.prompt
        # All of it is there before the screen hears of the first Enter.
        for key, character in (("a", "a"), ("enter", "\r"), ("b", "b"), ("enter", "\r")):
            box.post_message(events.Key(key, character))
        box.post_message(events.Key("c", "c"))
        # Nothing is lost either where the second cannot be sent: the first is being answered.
        await wait_until(run.pilot, lambda: box.text == "bc", "what was not sent")
        assert sent(run) == ["a"]
        assert box.cursor_location == (0, 2)


async def test_keys_that_come_at_once_edit_in_their_order(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        typed = (("a", "a"), ("b", "b"), ("backspace", "\x7f"), ("c", "c"), ("ctrl+j", "\n"))
        for key, character in (*typed, ("d", "d"), ("left", None), ("e", "e"), ("enter", "\r")):
            run.app.post_message(events.Key(key, character))
        await wait_until(run.pilot, lambda: sent(run) == ["ac\ned"], "the prompt as it was typed")


async def test_what_is_pasted_is_seen_as_it_is_sent(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        run.app.post_message(events.Paste("a\r\nb\x1b]52;c;eA==\x07\x85c"))
        await see(run.pilot, "b␛]52;c;eA==␇⟨85⟩c")
        await run.pilot.press("enter")
        await see_in(run.pilot, 0, "b␛]52;c;eA==␇⟨85⟩c The capital")
        (request,) = [c for c in run.left.commands if isinstance(c, Generate)]
        assert request.messages[-1].content == "a\nb␛]52;c;eA==␇⟨85⟩c"


async def test_joiners_are_typed_as_they_are_pasted(setup: Setup) -> None:
    typed = "👩\u200d👧 می\u200cخواهم"
    async with setup.running() as run:
        await run.ready()
        for character in f"{typed}\u200b":  # the last is one that spelling does not need
            run.screen.prompt.post_message(events.Key("unnamed", character))
        await wait_until(run.pilot, lambda: run.screen.prompt.text.endswith("م"), "all of it")
        assert run.screen.prompt.text == typed
        await run.pilot.press("enter")
        await wait_until(run.pilot, lambda: sent(run) == [typed], "the prompt")


async def test_pages_scroll_the_conversation_from_within_the_prompt(setup: Setup) -> None:
    setup.left.answer = setup.right.answer = lambda request: "\n\n".join(map(str, range(100)))
    async with setup.running((80, 24)) as run:
        await run.ready()
        await run.answered()
        for side in (0, 1):
            await see_in(run.pilot, side, "99")
        await run.pilot.press(*["pageup"] * 3)
        await see(run.pilot, "↓ more ^G")
        assert run.app.focused is run.screen.prompt
        # As often as it takes: the columns need not have been at the same place.
        for _ in range(50):
            await run.pilot.press("pagedown")
            if all(column.transcript.following for column in run.screen.columns.pair):
                break
        for side in (0, 1):
            await see_in(run.pilot, side, "99")
        assert all(column.transcript.following for column in run.screen.columns.pair)
