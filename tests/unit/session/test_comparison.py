"""A comparison with scripted workers: who gets each prompt, in what order, and when it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes.scripted_worker import Script, ScriptedProvider, starter
from fakes.waiting import until
from quantchat.profile.model import Generation, Profile
from quantchat.session.comparison import (
    Change,
    Comparison,
    ConversationChanged,
    TurnEnded,
    TurnStarted,
)
from quantchat.session.conversation import AnswerState
from quantchat.session.live_variant import State
from quantchat.wire.messages import Failed, Generate, Progress, Stop

Scripts = dict[str, Script]


@pytest.fixture
def scripts() -> Scripts:
    return {label: Script() for label in ("A", "B", "C")}


@pytest.fixture
def changes() -> list[Change]:
    return []


@pytest.fixture
def comparison(scripts: Scripts, changes: list[Change], tmp_path: Path) -> Comparison:
    variants = [{"label": s, "engine": "bitsandbytes", "model": "m"} for s in scripts]
    profile = Profile.model_validate({"name": "test", "variants": variants})
    return Comparison(
        profile,
        provider=ScriptedProvider(scripts),
        start=starter(scripts, tmp_path),
        on_change=changes.append,
    )


async def opened(comparison: Comparison) -> Comparison:
    comparison.open()
    await until(lambda: all(v.state in (State.READY, State.FAILED) for v in comparison.sides))
    return comparison


def asked(script: Script) -> list[Generate]:
    return [command for command in script.commands if isinstance(command, Generate)]


async def test_both_answer(comparison: Comparison, scripts: Scripts, changes: list[Change]) -> None:
    await opened(comparison)
    turn = comparison.ask("hello")
    assert comparison.busy
    await comparison.wait()
    assert turn.over
    assert {a.text for a in turn.answers.values()} == {"The capital of France is **Paris**."}
    assert all(a.order == "together" for a in turn.answers.values())
    assert all("".join(a.pieces) == a.text for a in turn.answers.values())
    assert all(a.ledger is not None for a in turn.answers.values())
    kinds = [type(change) for change in changes]
    assert kinds.index(TurnStarted) < kinds.index(TurnEnded)
    assert not asked(scripts["C"])
    await comparison.close()
    assert all(script.closed for label, script in scripts.items() if label != "C")


async def test_a_ready_side_answers_while_the_other_is_made(
    comparison: Comparison, scripts: Scripts
) -> None:
    scripts["B"].building = [Progress("quantizing", 7, 30)]
    scripts["B"].building_gate = asyncio.Event()
    comparison.open()
    left, right = comparison.sides
    await until(lambda: left.state is State.READY and right.progress is not None)
    assert right.state is State.PREPARING
    assert right.progress == Progress("quantizing", 7, 30)
    turn = comparison.ask("hello")
    await comparison.wait()
    assert turn.answers["A"].over and turn.answers["B"].queued
    # It was alone in answering, but not on the machine: the figures are contended.
    assert turn.answers["A"].order == "together"
    scripts["B"].building_gate.set()
    await until(lambda: right.state is State.READY)
    turn = comparison.replace_last()
    await comparison.wait()
    assert list(turn.answers) == ["A", "B"]
    await comparison.close()


async def test_in_turn_alternates_who_begins(comparison: Comparison, scripts: Scripts) -> None:
    await opened(comparison)
    comparison.order = "in-turn"
    begun: list[str] = []
    for label in ("A", "B"):
        script = scripts[label]

        def answer(request: Generate, label: str = label) -> str:
            other = "B" if label == "A" else "A"
            state = comparison.variants[0 if other == "A" else 1].state
            assert state is State.READY, "the idle variant must be idle indeed"
            begun.append(label)
            return "x"

        script.answer = answer
    for _ in range(2):
        comparison.ask("hello")
        await comparison.wait()
    assert begun == ["A", "B", "B", "A"]
    await comparison.close()


async def test_stop_reaches_both_and_keeps_what_was_said(
    comparison: Comparison, scripts: Scripts
) -> None:
    for label in ("A", "B"):
        scripts[label].holds_after = 2
    await opened(comparison)
    turn = comparison.ask("hello")
    await until(lambda: all(len(a.ids) == 2 for a in turn.answers.values()))
    comparison.stop()
    await comparison.wait()
    for answer in turn.answers.values():
        assert (answer.reason, answer.text) == ("stop", "The capital")
    assert Stop(turn.number) in scripts["A"].commands
    await comparison.close()


async def test_stop_in_turn_leaves_the_second_unasked(
    comparison: Comparison, scripts: Scripts
) -> None:
    scripts["A"].holds_after = 1
    await opened(comparison)
    comparison.order = "in-turn"
    turn = comparison.ask("hello")
    await until(lambda: len(turn.answers["A"].ids) == 1)
    comparison.stop()
    await comparison.wait()
    assert (turn.answers["B"].reason, turn.answers["B"].text) == ("stop", "")
    assert not asked(scripts["B"])
    await comparison.close()


async def test_a_variant_that_dies_leaves_the_other(
    comparison: Comparison, scripts: Scripts
) -> None:
    scripts["A"].dies_after = 2
    await opened(comparison)
    turn = comparison.ask("hello")
    await comparison.wait()
    left, right = comparison.sides
    answer = turn.answers["A"]
    assert (answer.state, answer.text) == (AnswerState.FAILED, "The capital")
    assert answer.failure is not None
    assert answer.failure.kind == "worker_ended"
    assert "signal 9" in answer.failure.reason
    assert turn.answers["B"].reason == "eos"
    assert left.state is State.FAILED
    assert right.state is State.READY
    # With the other side gone it is alone on the machine, whatever was asked for.
    turn = comparison.ask("and now?")
    await comparison.wait()
    assert (list(turn.answers), turn.answers["B"].order) == (["B"], "in-turn")
    scripts["A"].dies_after = None
    left.retry()
    await until(lambda: left.state is State.READY)
    await comparison.close()


@pytest.mark.parametrize("where", ["making", "loading", "dies"])
async def test_what_fails_says_why_and_can_be_tried_again(
    comparison: Comparison, scripts: Scripts, where: str
) -> None:
    failure = Failed("bad_checkpoint", "no such folder", "look")
    if where == "making":
        scripts["A"].building_fails = failure
    elif where == "loading":
        scripts["A"].loading_fails = failure
    else:
        scripts["A"].dies_loading = 3
    await opened(comparison)
    left, right = comparison.sides
    assert left.state is State.FAILED
    failed = left.failure
    assert failed is not None
    assert ("exit status 3" if where == "dies" else "no such folder") in failed.reason
    assert right.state is State.READY
    scripts["A"].building_fails = scripts["A"].loading_fails = scripts["A"].dies_loading = None
    left.retry()
    await until(lambda: left.state is State.READY)
    assert left.failure is None
    await comparison.close()


async def test_an_answer_that_fails_leaves_the_variant_ready(
    comparison: Comparison, scripts: Scripts
) -> None:
    scripts["A"].answer_fails = Failed("context_full", "the context is full", "new chat")
    await opened(comparison)
    turn = comparison.ask("hello")
    await comparison.wait()
    assert turn.answers["A"].failure is not None
    assert turn.answers["A"].failure.reason == "the context is full"
    assert comparison.sides[0].state is State.READY
    await comparison.close()


async def test_regenerate_edit_and_new_chat(
    comparison: Comparison, scripts: Scripts, changes: list[Change]
) -> None:
    await opened(comparison)
    comparison.ask("one")
    await comparison.wait()
    comparison.ask("two")
    await comparison.wait()
    comparison.replace_last("two, edited")
    await comparison.wait()
    assert [turn.prompt for turn in comparison.conversation.turns] == ["one", "two, edited"]
    last = asked(scripts["A"])[-1]
    assert [m.content for m in last.messages][::2] == ["one", "two, edited"]
    comparison.replace_last()
    await comparison.wait()
    assert [turn.prompt for turn in comparison.conversation.turns] == ["one", "two, edited"]
    comparison.remove_oldest()
    assert [turn.prompt for turn in comparison.conversation.turns] == ["two, edited"]
    comparison.new_chat()
    assert comparison.last_turn is None
    assert any(isinstance(change, ConversationChanged) for change in changes)
    await comparison.close()


async def test_settings_reach_the_worker(comparison: Comparison, scripts: Scripts) -> None:
    await opened(comparison)
    comparison.set_generation(
        Generation(system="Be brief.", temperature=0.7, top_k=5, seed=3, max_new_tokens=2)
    )
    turn = comparison.ask("hello")
    await comparison.wait()
    request = asked(scripts["A"])[-1]
    assert request.messages[0].content == "Be brief."
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.seed) == (
        0.7,
        5,
        3,
    )
    assert len(turn.answers["A"].ids) == 2
    await comparison.close()


async def test_another_pair_ends_the_one_not_shown(
    comparison: Comparison, scripts: Scripts
) -> None:
    await opened(comparison)
    comparison.choose_pair(0, 2)
    await until(lambda: all(v.state is State.READY for v in comparison.sides))
    await until(lambda: scripts["B"].closed)
    assert scripts["A"].lives == 1, "a variant already loaded is kept"
    # And back at once: the old worker must be gone before the new one loads.
    comparison.choose_pair(0, 1)
    comparison.choose_pair(0, 2)
    comparison.choose_pair(0, 1)
    await until(lambda: all(v.state is State.READY for v in comparison.sides))
    assert comparison.variants[2].state is not State.READY
    await comparison.close()
    assert all(script.closed for script in scripts.values())


async def test_what_cannot_be_done_now_is_said(comparison: Comparison, scripts: Scripts) -> None:
    with pytest.raises(ValueError, match="no variant is loaded or loading"):
        comparison.ask("too early")
    scripts["A"].holds_after = 1
    await opened(comparison)
    with pytest.raises(ValueError, match="no answer to regenerate"):
        comparison.replace_last()
    with pytest.raises(ValueError, match="two different"):
        comparison.choose_pair(1, 1)
    comparison.ask("hello")
    for action in (
        lambda: comparison.ask("again"),
        comparison.replace_last,
        comparison.new_chat,
        comparison.remove_oldest,
        lambda: comparison.choose_pair(0, 2),
    ):
        with pytest.raises(ValueError, match="streaming"):
            action()
    comparison.stop()
    await comparison.wait()
    await comparison.close()


async def test_closing_in_the_middle_ends_all(comparison: Comparison, scripts: Scripts) -> None:
    scripts["A"].holds_after = 1
    scripts["B"].loading_gate = asyncio.Event()
    comparison.open()
    await until(lambda: comparison.sides[0].state is State.READY)
    await until(lambda: comparison.sides[1].state is State.LOADING)
    turn = comparison.ask("hello")
    await until(lambda: len(turn.answers["A"].ids) == 1)
    await comparison.close()
    assert scripts["A"].closed
    assert scripts["B"].closed or scripts["B"].lives == 0
    assert turn.answers["A"].over
    assert turn.answers["A"].text == "The"
