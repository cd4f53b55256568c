"""Blind votes on the screen: random sides, one key per vote, and nothing that names a variant."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fakes.screen_reader import lines, see, see_gone, text, wait_until
from fakes.scripted_app import LEFT, RIGHT, SIZES, Running, Setup
from quantchat.app import terminal
from quantchat.app.screens import vote
from quantchat.app.screens.vote import VoteScreen
from quantchat.features.votes.voting import VotePlan
from quantchat.wire.messages import Failed, Progress

TELLTALE = (LEFT, RIGHT, "GPTQ", "NF4", "Linear", "tok/s", "TTFT", "MiB", "ms", "faster")
ENDS = "both answers are complete"


async def begin(run: Running, *prompts: str) -> VoteScreen:
    await run.ready()
    for prompt in prompts:
        await run.answered(prompt)
    await run.pilot.press("ctrl+backslash")
    await wait_until(run.pilot, lambda: isinstance(run.app.screen, VoteScreen), "the screen")
    screen = run.app.screen
    assert isinstance(screen, VoteScreen)
    return screen


def saved(run: Running) -> dict[str, Any]:
    (file,) = (run.folder / "snapshots").glob("*.json")
    body: dict[str, Any] = json.loads(file.read_text())
    return body


@pytest.mark.parametrize("size", SIZES)
async def test_a_session(setup: Setup, size: tuple[int, int]) -> None:
    setup.left.answer = lambda request: "said by one"
    setup.right.answer = lambda request: "said by two"
    async with setup.running(size) as run:
        screen = await begin(run, "First?", "Second?", "Third?")
        chosen = []
        for number, key in enumerate(("a", "b", "t"), 1):
            await see(run.pilot, f"prompt {number} of 3")
            await see(run.pilot, ENDS)
            await see(run.pilot, "said by one")
            await see(run.pilot, "said by two")
            shown = text(run.app)
            assert not [word for word in TELLTALE if word in shown]
            ballot = screen.voting.ballots[-1]
            one_first = shown.index("said by one") < shown.index("said by two")
            assert (ballot.left == LEFT) == one_first
            chosen.append({"a": ballot.left, "b": ballot.right, "t": None}[key])
            await run.pilot.press(key)
        await see(run.pilot, "blind votes: ")
        await see(run.pilot, f"{LEFT} {chosen.count(LEFT)}, {RIGHT} {chosen.count(RIGHT)}, ties 1")
        voting = saved(run)["voting"]
        assert [vote["choice"] for vote in voting["votes"]] == ["left", "right", "tie"]
        turns = {turn["number"]: turn["prompt"] for turn in saved(run)["turns"]}
        asked = [turns[vote["turn"]] for vote in voting["votes"]]
        assert asked == ["First?", "Second?", "Third?"]
        await run.pilot.press("escape")
        await see(run.pilot, LEFT)


async def test_the_faster_side_is_not_told_by_its_stream(setup: Setup) -> None:
    setup.left.answer = setup.right.answer = lambda request: "one two three four"
    async with setup.running() as run:
        await run.ready()
        await run.answered("First?")
        setup.right.holds_after = 2
        screen = await begin(run)
        await wait_until(run.pilot, lambda: screen.voting.ballots, "a ballot")
        ballot = screen.voting.ballots[0]
        await wait_until(run.pilot, lambda: ballot.turn.answers[LEFT].over, "one side over")
        await wait_until(run.pilot, lambda: len(ballot.turn.answers[RIGHT].ids) == 2, "the other")
        await wait_until(
            run.pilot, lambda: text(run.app).count("one two") == 2, "both at the same speed"
        )
        assert "three" not in text(run.app)
        await run.pilot.press("a")
        assert ballot.choice is None  # not before both are over
        await run.pilot.press("p")
        await see(run.pilot, "shown when both are complete")
        run.right.gate.set()
        await see(run.pilot, ENDS)
        await wait_until(run.pilot, lambda: text(run.app).count("three four") == 2, "both whole")


@pytest.mark.parametrize("shorter_is_slower", [True, False])
async def test_what_the_longer_answer_has_more_does_not_tell_who_was_waiting(
    setup: Setup, shorter_is_slower: bool
) -> None:
    setup.left.answer = lambda request: "one two three four five"
    setup.right.answer = lambda request: "one two three"
    async with setup.running() as run:
        await run.ready()
        await run.answered("First?")
        setup.left.holds_after, setup.right.holds_after = 4, 2
        screen = await begin(run)
        await wait_until(run.pilot, lambda: screen.voting.ballots, "a ballot")
        answers = screen.voting.ballots[0].turn.answers
        if shorter_is_slower:
            await wait_until(run.pilot, lambda: len(answers[LEFT].ids) == 4, "one far ahead")
        run.right.gate.set()
        await wait_until(run.pilot, lambda: answers[RIGHT].over, "the shorter one over")
        await wait_until(run.pilot, lambda: text(run.app).count("one two three") == 2, "as much")
        assert "four" not in text(run.app)
        await see(run.pilot, "one answer is complete")
        run.left.gate.set()
        await see(run.pilot, ENDS)
        await see(run.pilot, "four five")


async def test_what_was_revealed_is_not_counted(setup: Setup) -> None:
    async with setup.running() as run:
        screen = await begin(run, "First?")
        await see(run.pilot, ENDS)
        await run.pilot.press("r")
        side = "AB"[screen.voting.ballots[0].right == LEFT]
        await see(run.pilot, f"{side} {LEFT} (not counted)")
        await run.pilot.press("a")
        await see(run.pilot, "not counted: 1 vote while the names were shown")


async def test_it_may_be_ended_before_its_time(setup: Setup) -> None:
    async with setup.running() as run:
        screen = await begin(run, "First?", "Second?")
        await see(run.pilot, ENDS)
        await run.pilot.press("x")
        await see(run.pilot, "prompt 2 of 2")
        await run.pilot.press("escape")
        await see(run.pilot, "both bad 1")
        assert [vote["choice"] for vote in saved(run)["voting"]["votes"]] == ["bad"]
        assert not run.comparison.busy
        await run.pilot.press("escape")
        await see_gone(run.pilot, "both bad 1")
        assert screen.voting.plan.seed == saved(run)["voting"]["seed"]


async def test_a_failed_answer_is_passed_over_and_nobody_named(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered("First?")
        setup.left.dies_after = 1
        await begin(run)
        await see(run.pilot, "an answer failed")
        assert LEFT not in text(run.app)
        await run.pilot.press("a")
        await see(run.pilot, "No votes were given; nothing is saved")


@pytest.mark.parametrize("size", SIZES)
async def test_while_they_are_made_and_loaded_the_stages_are_told(
    setup: Setup, size: tuple[int, int]
) -> None:
    setup.votes = VotePlan(("First?",), seed=1)
    setup.left.building = [Progress("quantizing layer", 7, 30, "q_proj")]
    gate = setup.left.building_gate = asyncio.Event()
    async with setup.running(size) as run:
        await see(run.pilot, "loading, 1 of 2 ready")
        await see(run.pilot, "quantizing layer 7 of 30")
        shown = text(run.app)
        assert "Esc finish" in shown
        assert not [word for word in (LEFT, RIGHT, "A is better") if word in shown]
        gate.set()
        await see(run.pilot, "A is better")
        await see_gone(run.pilot, "quantizing layer")


async def test_why_it_cannot_begin_is_told(setup: Setup) -> None:
    setup.votes = VotePlan(("First?",), seed=1)
    setup.right.building_fails = Failed("no_space", "the disk is too full", "make room")
    async with setup.running((80, 24)) as run:
        await see(run.pilot, "No votes: a variant could not be loaded")
        await see(run.pilot, RIGHT)
        await see(run.pilot, "the disk is too full")
        await see(run.pilot, "try: make room")
        assert LEFT not in text(run.app)


async def test_quitting_in_the_middle_says_where_the_votes_are(setup: Setup) -> None:
    setup.votes = VotePlan(("First?", "Second?"), seed=1)
    async with setup.running() as run:
        await see(run.pilot, ENDS)
        await run.pilot.press("b")
        await see(run.pilot, "prompt 2 of 2")
        await run.pilot.press("ctrl+q")
    (file,) = (run.folder / "snapshots").glob("*.json")
    assert run.app.votes_saved == file
    assert [vote["choice"] for vote in saved(run)["voting"]["votes"]] == ["right"]


@pytest.mark.parametrize(
    ("pace", "draws"), [(terminal.LOCAL, 5), (terminal.REMOTE, 4), (terminal.LOW_BANDWIDTH, 1)]
)
def test_a_slow_connection_is_spared(
    monkeypatch: pytest.MonkeyPatch, pace: terminal.Pace, draws: int
) -> None:
    monkeypatch.setattr(terminal, "_chosen", pace)
    assert 1 / vote.draw_every_s() == draws


async def test_a_session_that_is_left_while_answering_leaves_no_key_to_stop_it(
    setup: Setup,
) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered("First?")
        setup.right.holds_after = 1
        screen = await begin(run)
        await wait_until(run.pilot, lambda: screen.voting.ballots, "a ballot")
        await wait_until(run.pilot, lambda: screen.voting.ballots[0].turn.answers[RIGHT].ids, "it")
        await run.pilot.press("escape")
        await see(run.pilot, "Esc close")
        await run.pilot.press("escape")
        await see(run.pilot, "Enter send")
        await wait_until(run.pilot, lambda: lines(run.app)[-1].startswith(" Enter"), "send first")
