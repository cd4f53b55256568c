"""Queued prompts, missed prompts that are sent later, and whose answers a chat continues."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes.scripted_worker import Script, ScriptedProvider, starter
from fakes.waiting import until
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.session.live_variant import State
from quantchat.session.recorder import record
from quantchat.snapshot import store
from quantchat.wire.messages import Failed, Generate

Scripts = dict[str, Script]


@pytest.fixture
def scripts() -> Scripts:
    found = {label: Script() for label in ("A", "B", "C")}
    for label, script in found.items():
        script.answer = lambda request, label=label: f"{label}{len(request.messages)}"  # type: ignore[misc]
    return found


def made(scripts: Scripts, folder: Path, **run: object) -> Comparison:
    variants = [{"label": s, "engine": "bitsandbytes", "model": "m"} for s in scripts]
    profile = Profile.model_validate({"name": "test", "variants": variants, "run": run})
    return Comparison(profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder))


def chats(script: Script) -> list[list[str]]:
    return [[m.content for m in c.messages] for c in script.commands if isinstance(c, Generate)]


async def opened(comparison: Comparison) -> None:
    comparison.open()
    await until(lambda: all(v.state is State.READY for v in comparison.sides))


async def settled(comparison: Comparison) -> None:
    await until(lambda: not comparison.busy and not comparison.queued)


async def test_prompts_wait_for_a_side_that_loads(scripts: Scripts, tmp_path: Path) -> None:
    comparison = made(scripts, tmp_path)
    scripts["B"].loading_gate = asyncio.Event()
    comparison.open()
    first = comparison.ask("one")  # nobody is ready yet
    await until(lambda: first.answers["A"].over)
    await comparison.wait()
    second = comparison.ask("two")
    await comparison.wait()
    assert [first.answers["B"].queued, second.answers["B"].queued] == [True, True]
    assert comparison.queued
    scripts["B"].loading_gate.set()
    await settled(comparison)
    assert chats(scripts["B"]) == [["one"], ["one", "B1", "two"]]
    assert [turn.over for turn in comparison.conversation.turns] == [True, True]
    await comparison.close()


async def test_what_is_queued_can_be_taken_back(scripts: Scripts, tmp_path: Path) -> None:
    comparison = made(scripts, tmp_path)
    for label in ("A", "B"):
        scripts[label].loading_gate = asyncio.Event()
    comparison.open()
    comparison.ask("one")
    assert comparison.take_back() == "one"
    assert comparison.conversation.turns == [] and not comparison.queued
    scripts["A"].loading_gate.set()  # type: ignore[union-attr]
    await until(lambda: comparison.sides[0].state is State.READY)
    turn = comparison.ask("two")
    await comparison.wait()
    assert comparison.take_back() is None  # A has answered: the turn stays
    assert list(turn.answers) == ["A"] and turn.not_sent["B"] == "the prompt was taken back"
    await comparison.close()


async def test_a_side_is_asked_the_turns_that_it_lacks(scripts: Scripts, tmp_path: Path) -> None:
    comparison = made(scripts, tmp_path)
    scripts["B"].loading_fails = Failed("internal", "a reason")
    comparison.open()
    await until(lambda: comparison.sides[0].state is State.READY)
    await until(lambda: comparison.sides[1].state is State.FAILED)
    first = comparison.ask("one")
    await comparison.wait()
    assert first.not_sent == {"B": "the variant had failed"}
    with pytest.raises(ValueError, match="B is not loaded"):
        comparison.ask_missing()
    scripts["B"].loading_fails = None
    comparison.sides[1].retry()
    await until(lambda: comparison.sides[1].state is State.READY)
    comparison.ask("two")
    await comparison.wait()
    assert comparison.ask_missing() == 1 and first.answers["B"].queued is False
    await settled(comparison)
    assert chats(scripts["B"]) == [["two"], ["one"]]
    assert comparison.ask_missing() == 0
    await comparison.close()


async def test_another_pair_takes_back_what_waits_for_a_side_that_leaves(
    scripts: Scripts, tmp_path: Path
) -> None:
    comparison = made(scripts, tmp_path)
    scripts["B"].loading_gate = asyncio.Event()
    comparison.open()
    await until(lambda: comparison.sides[0].state is State.READY)
    turn = comparison.ask("one")
    await comparison.wait()
    comparison.choose_pair(0, 2)
    assert "B" not in turn.answers
    await until(lambda: comparison.sides[1].state is State.READY)
    assert comparison.ask_missing() == 1
    await settled(comparison)
    assert turn.answers["C"].text == "C1"
    await comparison.close()


@pytest.mark.parametrize(("history", "earlier"), [("own", "B1"), ("left", "A1"), ("right", "B1")])
async def test_one_history_for_both(
    scripts: Scripts, tmp_path: Path, history: str, earlier: str
) -> None:
    comparison = made(scripts, tmp_path, history=history)
    await opened(comparison)
    for prompt in ("one", "two"):
        turn = comparison.ask(prompt)
        await settled(comparison)
    assert chats(scripts["B"])[-1] == ["one", earlier, "two"]
    of_a = "A1" if history != "right" else "B1"
    assert chats(scripts["A"])[-1] == ["one", of_a, "two"]
    assert turn.history_of == {"own": "", "left": "A", "right": "B"}[history]
    await comparison.close()


async def test_regenerated_answers_stay_and_the_chat_continues_from_those_shown(
    scripts: Scripts, tmp_path: Path
) -> None:
    comparison = made(scripts, tmp_path)
    await opened(comparison)
    comparison.ask("one")
    await settled(comparison)
    scripts["A"].answer = scripts["B"].answer = lambda request: "other"
    turn = comparison.replace_last()
    await settled(comparison)
    assert [v["A"].text for v in turn.versions] == ["A1", "other"]
    assert not comparison.show_version(1)
    assert comparison.show_version(-1) and not comparison.show_version(-1)
    assert turn.answers["A"].text == "A1"
    comparison.ask("two")
    await settled(comparison)
    assert chats(scripts["A"])[-1] == ["one", "A1", "two"]
    saved = store.loads(store.dumps(record(comparison)), where="")
    assert [a.text for version in saved.turns[0].others for a in version] == ["other", "other"]
    await comparison.close()


async def test_variants_stay_loaded_as_long_as_there_is_a_place(
    scripts: Scripts, tmp_path: Path
) -> None:
    scripts["D"] = Script()
    comparison = made(scripts, tmp_path, keep_loaded=3)
    await opened(comparison)
    comparison.choose_pair(0, 2)
    await opened(comparison)
    assert comparison.variants[1].state is State.READY, "there is a place for three"
    comparison.choose_pair(0, 1)
    await opened(comparison)
    assert [script.lives for script in scripts.values()] == [1, 1, 1, 0]
    comparison.choose_pair(0, 3)
    await opened(comparison)
    await until(lambda: comparison.variants[2].state is State.IDLE)
    assert comparison.variants[1].state is State.READY, "it was shown later than C"
    await comparison.close()


async def test_by_default_as_many_stay_loaded_as_memory_has_places(
    scripts: Scripts, tmp_path: Path
) -> None:
    comparison = made(scripts, tmp_path)
    await opened(comparison)
    assert comparison.recent_with(0, 2) == [0, 2, 1]
    comparison.choose_pair(0, 2, fitting=3)
    await opened(comparison)
    assert comparison.variants[1].state is State.READY
    comparison.choose_pair(1, 2, fitting=2)
    await until(lambda: comparison.variants[0].state is State.IDLE)
    assert [script.lives for script in scripts.values()] == [1, 1, 1]
    await comparison.close()
