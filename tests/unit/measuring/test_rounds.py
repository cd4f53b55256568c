"""Rounds: balanced order, discarded warm-up, each prompt without history."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.scripted_worker import Script, ScriptedProvider, starter
from fakes.waiting import until
from quantchat.measuring.rounds import Plan, Rounds, Task
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import AnswerState
from quantchat.session.live_variant import State
from quantchat.wire.messages import Generate

Asked = list[tuple[str, Generate]]


async def opened(scripts: dict[str, Script], folder: Path) -> Comparison:
    variants = [{"label": s, "engine": "bitsandbytes", "model": "m"} for s in scripts]
    profile = Profile.model_validate(
        {"name": "test", "variants": variants, "generation": {"system": "Be brief."}}
    )
    comparison = Comparison(
        profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder)
    )
    comparison.open()
    await until(lambda: all(v.state is State.READY for v in comparison.sides))
    return comparison


def listening(scripts: dict[str, Script]) -> Asked:
    asked: Asked = []
    for label, script in scripts.items():

        def answer(request: Generate, label: str = label) -> str:
            asked.append((label, request))
            return "one two three"

        script.answer = answer
    return asked


@given(tasks=st.integers(1, 4), rounds=st.integers(1, 4), warmup=st.integers(0, 3))
def test_the_order_is_balanced(tasks: int, rounds: int, warmup: int) -> None:
    import tempfile

    async def check(folder: Path) -> None:
        scripts = {"A": Script(), "B": Script()}
        asked = listening(scripts)
        comparison = await opened(scripts, folder)
        plan = Plan(tuple(Task(f"p{n}") for n in range(tasks)), rounds, warmup)
        steps: list[int] = []
        measured = await Rounds(comparison, plan, lambda done, *_: steps.append(done)).run()
        await comparison.close()
        assert len(measured) == tasks * rounds
        assert steps == [*range(plan.total), plan.total]
        assert len(asked) == 2 * plan.total
        first = [label for label, _ in asked[2 * warmup :: 2]]
        for task in range(tasks):
            own = first[task::tasks]
            assert abs(own.count("A") - own.count("B")) <= 1
            assert all(a != b for a, b in pairwise(own))

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder)))


async def test_each_prompt_stands_alone(tmp_path: Path) -> None:
    scripts = {"A": Script(), "B": Script()}
    asked = listening(scripts)
    comparison = await opened(scripts, tmp_path)
    plan = Plan((Task("one"), Task("two", prompt_tokens=512, output_tokens=8)), 1, 0, "together")
    measured = await Rounds(comparison, plan).run()
    await comparison.close()
    for _, request in asked:
        assert request.fresh
        assert [m.role for m in request.messages] == ["system", "user"]
    lengths = {(r.prompt_tokens, r.ignore_eos) for _, r in asked}
    assert lengths == {(0, False), (512, True)}
    assert [m.turn.prompt for m in measured] == ["one", "two"]
    assert all(a.order == "together" for m in measured for a in m.turn.answers.values())
    assert not comparison.conversation.turns, "a measurement is no part of the chat"


async def test_stopping_keeps_what_was_measured(tmp_path: Path) -> None:
    scripts = {"A": Script(), "B": Script()}
    comparison = await opened(scripts, tmp_path)
    rounds = Rounds(comparison, Plan((Task("one"),), rounds=5, warmup=0))
    told: list[str] = []

    def step(done: int, total: int, detail: str) -> None:
        told.append(detail)
        if done == 2:
            scripts["A"].holds_after = scripts["B"].holds_after = 1

    rounds.on_step = step
    task = asyncio.ensure_future(rounds.run())
    await until(lambda: len(rounds.measured) == 2 and len(told) == 3)
    rounds.stop()
    measured = await task
    await comparison.close()
    assert len(measured) == 2
    assert told[-1] == "stopped"


@pytest.mark.parametrize("order", ["in-turn", "together"])
async def test_a_side_that_dies_does_not_hang_the_rounds(order: str, tmp_path: Path) -> None:
    scripts = {"A": Script(), "B": Script(dies_after=1)}
    comparison = await opened(scripts, tmp_path)
    plan = Plan(
        (Task("one"),), rounds=2, warmup=0, order="together" if order == "together" else "in-turn"
    )
    measured = await Rounds(comparison, plan).run()
    await comparison.close()
    assert all(m.turn.answers["A"].state is AnswerState.DONE for m in measured)
    assert all(m.turn.answers["B"].state is AnswerState.FAILED for m in measured)
