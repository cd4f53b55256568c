"""A measurement without a screen: from loading to a snapshot with ratios and warnings."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes.printed_document import printed
from fakes.scripted_worker import Script, ScriptedProvider, model_info, starter
from fakes.waiting import until
from quantchat.errors import ModelsFailed
from quantchat.features.measure import tables as report
from quantchat.features.measure.headline import headline
from quantchat.host import signals, watchdog
from quantchat.measuring.measure import measure
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.model import Profile
from quantchat.session import live_variant
from quantchat.session.comparison import Comparison
from quantchat.session.live_variant import State
from quantchat.snapshot import store
from quantchat.snapshot.ratios import compare_sides, pooled_gaps
from quantchat.wire.messages import Failed
from quantchat.wire.variant import ANY_SERVER, decode_modes_differ

PLAN = Plan((Task("one"), Task("two"), Task("three")), rounds=2, warmup=1)


def comparison(folder: Path, **scripts: Script) -> Comparison:
    variants = [{"label": s, "engine": "bitsandbytes", "model": "m"} for s in scripts]
    profile = Profile.model_validate({"name": "test", "variants": variants})
    return Comparison(profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder))


def pair(folder: Path, b_token_ms: float = 10.0) -> Comparison:
    text = "one two three four five six seven eight"
    return comparison(
        folder,
        A=Script(answer=lambda request: text, token_ms=20.0),
        B=Script(answer=lambda request: text, token_ms=b_token_ms, model_info=model_info("other")),
    )


async def test_from_loading_to_ratios(tmp_path: Path) -> None:
    steps: list[str] = []
    snapshot = await measure(
        pair(tmp_path), PLAN, on_step=lambda done, total, detail: steps.append(detail)
    )
    assert snapshot.measurement is not None
    assert not snapshot.measurement.stopped
    assert len(snapshot.turns) == 6
    assert {(turn.task, turn.round) for turn in snapshot.turns} == {
        (task, number) for task in (1, 2, 3) for number in (1, 2)
    }
    assert steps[0].startswith("warming up")
    # Before each round, and at the end.
    assert len(snapshot.measurement.samples) == 3

    found = {one.figure: one for one in compare_sides(snapshot)}
    tpot = found["TPOT"]
    assert tpot.a == pytest.approx(20.0)
    assert tpot.b == pytest.approx(10.0)
    assert tpot.ratio is not None
    assert tpot.ratio.value == pytest.approx(0.5)
    assert tpot.ratio.shown
    assert (tpot.ratio.pairs, tpot.ratio.prompts) == (6, 3)
    assert found["decode throughput"].b == pytest.approx(100.0)
    memory = found["memory, process"].ratio
    assert memory is not None
    assert not memory.shown
    (gaps_a, _) = pooled_gaps(snapshot)
    assert gaps_a.tokens == 6 * 7

    assert store.load(store.save(snapshot, tmp_path / "saved")) == snapshot
    text = printed(report.blocks(snapshot), 120)
    assert "one at a time: 6 turns, 3 prompts, 2 rounds, 1 warm-up" in text
    assert "0.500" in text
    assert "no difference shown" in text
    assert "over 42 gaps" in text


async def test_a_side_against_itself_shows_no_difference(tmp_path: Path) -> None:
    snapshot = await measure(pair(tmp_path, b_token_ms=20.0), PLAN)
    for one in compare_sides(snapshot):
        assert one.ratio is not None
        assert not one.ratio.shown, one


async def test_together_is_marked_contended(tmp_path: Path) -> None:
    plan = Plan((Task("one"),), rounds=1, warmup=0, order="together")
    snapshot = await measure(pair(tmp_path), plan)
    text = printed(report.blocks(snapshot), 120)
    assert "Measured together (contended)" in text
    assert "not to be quoted" in text
    assert "none: measured once" in text


async def test_unequal_and_unsteady_answers_are_flagged(tmp_path: Path) -> None:
    sides = pair(tmp_path)
    script = Script(answer=lambda request: "a shorter one of five")
    speeds = iter([20.0, 40.0, 20.0, 40.0])

    def answer(request: object) -> str:
        script.token_ms = next(speeds)
        return "a shorter one of five"

    script.answer = answer
    sides = comparison(tmp_path, A=Script(), B=script)
    snapshot = await measure(sides, Plan((Task("one"),), rounds=4, warmup=0))
    assert snapshot.measurement is not None
    flags = snapshot.measurement.flags
    assert any("B, prompt 1: decode throughput varied" in flag for flag in flags)
    assert any("different length" in flag for flag in flags)


async def test_a_restless_machine_is_one_doubt_of_a_variant(tmp_path: Path) -> None:
    script, speeds = Script(), iter([20.0, 20.0, 40.0, 60.0])

    def answer(request: object) -> str:
        script.token_ms = next(speeds)
        return "a shorter one of five"

    script.answer = answer
    plan = Plan((Task("one"), Task("two")), rounds=2, warmup=0)
    snapshot = await measure(comparison(tmp_path, A=Script(), B=script), plan)
    assert snapshot.measurement is not None
    (doubt,) = [flag for flag in snapshot.measurement.flags if "throughput varied" in flag]
    assert doubt.startswith("B, prompt 1, 2: decode throughput varied by 47% to 71% between")


async def test_sides_that_are_not_asked_alike_are_flagged(tmp_path: Path) -> None:
    base = Script(model_info=model_info(chat_template=False))
    snapshot = await measure(comparison(tmp_path, A=Script(), B=base), PLAN)
    assert snapshot.measurement is not None
    told = "B has no chat template, but the other side has one: the prompts differ"
    assert told in snapshot.measurement.flags
    snapshot = await measure(comparison(tmp_path, A=base, B=base), PLAN)
    assert snapshot.measurement is not None
    assert not [flag for flag in snapshot.measurement.flags if "template" in flag]


async def test_sides_with_different_decode_modes_are_flagged(tmp_path: Path) -> None:
    other = Script(model_info=replace(model_info(), decode="generate"))
    snapshot = await measure(comparison(tmp_path, A=Script(), B=other), PLAN)
    assert snapshot.measurement is not None
    (told,) = [flag for flag in snapshot.measurement.flags if "decode modes" in flag]
    assert told.startswith("the sides use different decode modes (A: own loop; B: generate)")
    assert "different decode modes" in headline(snapshot)
    snapshot = await measure(comparison(tmp_path, A=other, B=other), PLAN)
    assert snapshot.measurement is not None
    assert not [flag for flag in snapshot.measurement.flags if "decode modes" in flag]
    assert "decode modes" not in headline(snapshot)


@pytest.mark.parametrize("device", ANY_SERVER)
def test_how_a_server_decodes_is_not_known(device: str) -> None:
    server = replace(model_info(), decode="server", device=device)
    assert not decode_modes_differ(model_info(), server)
    assert not decode_modes_differ(None, model_info())


async def test_where_one_does_not_load_the_other_is_measured_alone(tmp_path: Path) -> None:
    broken = Script(loading_fails=Failed("bad_checkpoint", "no such folder", "look"))
    sides = comparison(tmp_path, A=Script(), B=broken)
    snapshot = await measure(sides, PLAN)
    answers = [answer for turn in snapshot.turns for answer in turn.answers]
    alone = [answer for answer in answers if answer.variant == "A"]
    assert len(alone) == len(snapshot.turns)
    assert all(answer.state == "done" for answer in alone)
    others = [answer.failure for answer in answers if answer.variant == "B"]
    assert all(failure and failure.reason == "no such folder" for failure in others)
    assert store.loads(store.dumps(snapshot), where="it") == snapshot
    assert "no such folder" in printed(report.blocks(snapshot), 100)
    assert compare_sides(snapshot) == []
    assert all(variant.pid is None for variant in sides.variants)


async def test_where_neither_loads_it_ends(tmp_path: Path) -> None:
    broken = Script(loading_fails=Failed("bad_checkpoint", "no such folder", "look"))
    sides = comparison(tmp_path, A=broken, B=broken)
    with pytest.raises(ModelsFailed, match="A: no such folder"):
        await measure(sides, PLAN)
    assert sides.variants[0].pid is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_keeps_what_was_measured(tmp_path: Path, number: signal.Signals) -> None:
    def step(done: int, total: int, detail: str) -> None:
        if done == 3:
            os.kill(os.getpid(), number)

    snapshot = await measure(pair(tmp_path), PLAN, on_step=step)
    assert snapshot.measurement is not None
    assert snapshot.measurement.stopped
    assert 2 <= len(snapshot.turns) < 6


async def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    def step(done: int, total: int, detail: str) -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        snapshot = await measure(pair(tmp_path), PLAN, on_step=step)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert snapshot.measurement is not None
    assert not snapshot.measurement.stopped


def deaf_at(folder: Path, call: int) -> tuple[Comparison, Script]:
    """A pair of which B, in its answer number `call`, goes on for ever and hears no stop."""
    b = Script(token_ms=10.0)
    calls = itertools.count(1)

    def answer(request: object) -> str:
        if next(calls) == call:
            b.holds_after, b.deaf = 1, True
        return "one two three four"

    b.answer = answer
    return comparison(folder, A=Script(), B=b), b


@pytest.mark.parametrize(
    "sent", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP]], ids=str
)
async def test_a_worker_that_does_not_stop_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: list[signal.Signals]
) -> None:
    monkeypatch.setattr(signals, "GRACE_S", 0.0)
    sides, b = deaf_at(tmp_path, call=4)  # the warm-up is the first one
    work = asyncio.ensure_future(measure(sides, PLAN))
    await until(lambda: b.deaf and sides.variants[1].state is State.ANSWERING)
    for number in sent:
        assert not work.done()
        os.kill(os.getpid(), number)
        await asyncio.sleep(0)
    snapshot = await work
    assert snapshot.measurement is not None
    assert snapshot.measurement.stopped
    assert len(snapshot.turns) == 2
    assert snapshot.variants[0].failure is None
    assert snapshot.variants[1].failure is not None
    assert "did not stop" in snapshot.variants[1].failure.reason


class Clock:
    """A monotonic clock that goes on by 4 s at each look while `runs` says so."""

    def __init__(self, runs: Callable[[], bool]) -> None:
        self.runs, self.ahead_s = runs, 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    def look(self) -> float:
        self.ahead_s += 4.0 * self.runs()
        return self.monotonic()


async def test_a_side_that_falls_silent_is_failed_and_the_other_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides, b = deaf_at(tmp_path, call=3)
    clock = Clock(lambda: b.deaf and sides.variants[1].state is State.ANSWERING)
    monkeypatch.setattr(watchdog, "CHECK_S", 0.0)
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=clock.look))
    monkeypatch.setattr(live_variant, "time", clock)
    snapshot = await measure(sides, PLAN)
    assert snapshot.measurement is not None
    assert not snapshot.measurement.stopped
    assert len(snapshot.turns) == 6
    of_a, of_b = ([turn.answers[side] for turn in snapshot.turns] for side in (0, 1))
    assert [(a.state, a.failure) for a in of_a] == [("done", None)] * 6
    assert [answer.state for answer in of_b] == ["done", *["failed"] * 5]
    assert snapshot.variants[1].failure is not None
    assert "the worker sent no message for 6" in snapshot.variants[1].failure.reason
    assert clock.ahead_s >= live_variant.LOST_S


async def test_a_silence_while_we_were_stopped_ourselves_is_no_fault(tmp_path: Path) -> None:
    looks: list[str] = []
    times = iter([0.0, 1.0, 400.0, 401.0])

    def now() -> float:
        return next(times, 401.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watchdog, "CHECK_S", 0.0)
        patch.setattr(watchdog, "time", SimpleNamespace(monotonic=now))
        async with watchdog.watchdog(
            lambda at_s: looks.append(f"look {at_s:.0f}"),
            lambda at_s: looks.append(f"excuse {at_s:.0f}"),
        ):
            await until(lambda: len(looks) >= 3)
    assert looks[:3] == ["look 1", "excuse 400", "look 401"]


async def test_a_signal_while_loading_ends_it(tmp_path: Path) -> None:
    gate = asyncio.Event()
    sides = comparison(tmp_path, A=Script(), B=Script(loading_gate=gate))
    asyncio.get_running_loop().call_later(0, os.kill, os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        await measure(sides, PLAN)
    assert all(variant.pid is None for variant in sides.variants)
