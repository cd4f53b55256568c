"""Search, word diff, export, prompts from a file, and continuing a saved chat."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from textual.widgets import Input

from fakes.screen_reader import lines, see, see_in, text, wait_until
from fakes.scripted_app import LEFT, RIGHT, Setup
from quantchat.app.screens.diff import DiffScreen
from quantchat.app.screens.search import search
from quantchat.session.conversation import Answer, AnswerState, Conversation
from quantchat.session.recorder import record
from quantchat.snapshot import store

Size = tuple[int, int]
SIZES = [(80, 24), (120, 40)]


def test_search_marks_the_match_behind_letters_with_longer_lower_case() -> None:
    turn = SimpleNamespace(prompt="Straße, İstanbul: NF4 or GPTQ?", answers={})
    (hit,) = search(cast("Conversation", SimpleNamespace(turns=[turn])), "nf4")
    assert (hit.before, hit.text, hit.after) == ("Straße, İstanbul: ", "NF4", " or GPTQ?")


@pytest.mark.parametrize("size", SIZES)
async def test_search_goes_to_the_place(setup: Setup, size: Size) -> None:
    async with setup.running(size) as run:
        await run.ready()
        for number in range(30):
            answers = [Answer(v.label, "together", AnswerState.DONE) for v in run.comparison.sides]
            for answer in answers:
                answer.text = "its end\n\n" * 3 + f"answer {number} by {answer.variant}"
            run.comparison.conversation.begin(f"prompt {number}?", answers)
        await run.answered("the newest?")
        await run.pilot.press("alt+s")
        await see(run.pilot, "Search the conversation")
        run.app.screen.query_one(Input).value = "ANSWER 2 B"
        await see(run.pilot, f"3 {RIGHT}")
        await see(run.pilot, f"answer 2 by {LEFT}")
        await run.pilot.press("enter")
        await see_in(run.pilot, 0, f"answer 2 by {LEFT}")
        await see_in(run.pilot, 1, f"answer 2 by {RIGHT}")
        await run.pilot.press("alt+s", *"nowhere")
        await see(run.pilot, "not found")
        await run.pilot.press("escape")
        await see_in(run.pilot, 0, f"answer 2 by {LEFT}")


@pytest.mark.parametrize("size", SIZES)
async def test_the_diff_has_the_words_of_each_side(setup: Setup, size: Size) -> None:
    setup.right.answer = lambda request: "The capital of Italy is **Rome**."
    async with setup.running(size) as run:
        await run.ready()
        await run.pilot.press("alt+d")
        await see(run.pilot, "does not have two answers")
        await run.answered()
        await run.pilot.press("alt+d")
        await see(run.pilot, f"only {LEFT}")
        await see(run.pilot, "The capital of France Italy is **ParisRome**.")
        marked = [
            segment.text
            for strip in run.app.screen._compositor.render_strips()
            for segment in strip
            if segment.style is not None and segment.style.reverse and segment.text.strip()
        ]
        assert marked == ["France", "Italy", "Paris", "Rome"]
        await run.pilot.press("escape")
        await wait_until(run.pilot, lambda: not isinstance(run.app.screen, DiffScreen), "closed")


async def test_the_chat_is_exported(setup: Setup) -> None:
    setup.left.thought = lambda request: "Hm."
    async with setup.running() as run:
        await run.ready()
        await run.answered("one?")
        await run.answered("two?")
        await run.pilot.press("alt+e")
        await see(run.pilot, "Chat saved")
        (file,) = (setup.folder / "snapshots").glob("*-chat.md")
        body = file.read_text()
        assert body.startswith("# a comparison\n")
        assert "## Turn 2\n\n> two?\n\n" in body
        assert f"### {LEFT}\n\n*thoughts, 1 token:*\n\n> Hm.\n\n*answer:*\n\nThe capital" in body
        assert body.count(f"### {RIGHT}") == 2


@pytest.mark.parametrize("size", SIZES)
async def test_the_prompts_of_a_file_are_sent(setup: Setup, size: Size, tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("one?\n\ntwo?\n")
    async with setup.running(size) as run:
        await run.ready()
        await run.pilot.press("alt+o", *"nothing.txt", "enter")
        await see(run.pilot, "cannot read the prompts")
        run.app.screen.query_one(Input).value = str(file)
        await run.pilot.press("enter")
        await wait_until(run.pilot, lambda: len(run.comparison.conversation.turns) == 2, "both")
        await run.settled()
        await see_in(run.pilot, 0, "two?", "The capital of France is Paris.")


@pytest.mark.parametrize("size", SIZES)
async def test_a_saved_chat_goes_on(setup: Setup, size: Size) -> None:
    async with setup.running(size) as run:
        await run.ready()
        await run.answered("one?")
        saved = record(run.comparison, run.machine)
    setup.chat, setup.pair = store.loads(store.dumps(saved), where=""), (1, 0)
    async with setup.running(size) as run:
        assert [holder.unsaved for holder in (run.screen,)] == [False]
        await run.ready()
        assert lines(run.app)[1].index(RIGHT) < lines(run.app)[1].index(LEFT)
        await see_in(run.pilot, 0, "one?", "The capital of France is Paris.")
        await run.answered("two?")
        await see_in(run.pilot, 0, "two?")
        assert run.screen.unsaved and "one?" in text(run.app)
