"""A pick from plan to snapshot, with scripted workers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fakes.scripted_pick import PickWorkers
from fakes.scripted_worker import Script
from fakes.waiting import until
from quantchat import corpus
from quantchat.document.document import Paragraph
from quantchat.errors import ModelsFailed, UserError
from quantchat.features.pick import run, state
from quantchat.features.pick.plan import PickPlan, ScoredText, score_plan
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.model import Profile
from quantchat.report.content import content
from quantchat.report.snapshot import blocks
from quantchat.snapshot import store
from quantchat.snapshot.pick import LimitsRecord
from quantchat.snapshot.schema import Snapshot
from quantchat.wire.messages import Failed

pytestmark = pytest.mark.usefixtures("own_folders")

FAR = {"bf16": 0.0, "nf4": 0.08, "int8": 0.01, "fp4": 0.15}


def workers(folder: Path) -> PickWorkers:
    """Four-bit variants are faster and further from the original."""
    ms = {"bf16": 40.0, "nf4": 10.0, "int8": 20.0, "fp4": 10.1}
    return PickWorkers({label: Script(token_ms=t) for label, t in ms.items()}, FAR, folder)


def profile(*labels: str) -> Profile:
    keys: dict[str, dict[str, Any]] = {
        "bf16": {"engine": "transformers", "dtype": "bfloat16"},
        "nf4": {"engine": "bitsandbytes", "quant_type": "nf4"},
        "fp4": {"engine": "bitsandbytes", "quant_type": "fp4"},
        "int8": {"engine": "bitsandbytes", "quant_type": "int8"},
        "server": {"engine": "openai", "base_url": "http://127.0.0.1:9/v1"},
    }
    variants = [
        {"label": label, "model": "demo:smollm2-135m-instruct", "device": "cpu", **keys[label]}
        for label in labels
    ]
    for variant in variants:
        if variant["label"] == "server":
            del variant["device"]
    return Profile.model_validate({"name": "Four", "variants": variants})


def plan(asked: Profile, folder: Path, **more: Any) -> PickPlan:
    fields: dict[str, Any] = dict.fromkeys(("max_memory", "min_tps", "max_kld", "max_drop"))
    chosen = {key: more.pop(key) for key in list(more) if key in {*fields, "prefer"}}
    text = folder / "text"
    text.write_text("Some words.", encoding="utf-8")
    return PickPlan(
        limits=LimitsRecord(**{**fields, "context": 2048, "prefer": "fastest", **chosen}),
        speed=Plan((Task("one"), Task("two"), Task("three")), rounds=2, warmup=1, ignore_eos=True),
        score=score_plan(asked, ScoredText(corpus.text_file(text), 1024, 64), None),
        fetch=False,
        **more,
    )


async def picked(
    asked: Profile, chosen: PickPlan, its: PickWorkers, **more: Any
) -> tuple[Snapshot, run.Picking]:
    with state.open_store(state.key_of(asked, chosen)) as kept:
        picking = run.Picking(asked, chosen, kept, provider=its.provider, start=its.start, **more)
        snapshot = await run.pick(picking)
        if picking.finished:
            kept.remove()
        return snapshot, picking


async def test_from_profile_to_recommendation(tmp_path: Path) -> None:
    asked, its = profile("bf16", "nf4", "int8", "fp4"), workers(tmp_path)
    snapshot, picking = await picked(asked, plan(asked, tmp_path, max_kld=0.05), its)
    found = snapshot.pick
    assert found is not None
    assert (found.recommended, found.runner_up) == ("int8", "bf16")
    assert [one.misses_limit for one in found.candidates] == [False, True, False, True]
    speeds = [one.speed.value for one in found.candidates if one.speed]
    assert speeds == pytest.approx([25, 100, 50, 99], rel=0.01)
    assert [one.kld.value for one in found.candidates if one.kld] == pytest.approx(
        [0, 0.08, 0.01, 0.15], rel=0.2
    )
    assert its.begun[0] == ("score", "bf16")  # the others are compared with it
    assert sorted(its.begun) == sorted(
        [("score", label) for label in FAR] + [("chat", label) for label in FAR]
    )
    assert picking.finished
    assert snapshot.shown == ["int8", "bf16"]
    assert len(snapshot.turns) == 6 and all(len(turn.answers) == 4 for turn in snapshot.turns)
    assert store.loads(store.dumps(snapshot), where="it") == snapshot
    assert len(blocks(snapshot)) > 5
    document = content([("it.json", snapshot)])
    assert "frontier" in [plot.name for plot in document.plots()]
    first = document.sections[0].parts[0]  # the recommendation, and no verdict on two variants
    assert isinstance(first, Paragraph) and first.spans[0].text.startswith("Take int8")


async def test_a_variant_that_fails_is_dropped_with_its_reason(tmp_path: Path) -> None:
    asked, its = profile("bf16", "nf4", "int8"), workers(tmp_path)
    its.scripts["nf4"].loading_fails = Failed("out_of_memory", "the GPU is full")
    its.scoring_fails["int8"] = Failed("internal", "it broke")
    snapshot, picking = await picked(asked, plan(asked, tmp_path), its)
    found = snapshot.pick
    assert found is not None and picking.finished
    dropped = {one.label: one.dropped for one in found.candidates if one.dropped}
    assert list(dropped) == ["nf4"]
    assert "the GPU is full" in dropped["nf4"]
    assert found.recommended == "int8"  # it was measured, and there is no limit on its distance
    unknown = found.of("int8")
    assert unknown is not None and unknown.kld is None


async def test_what_cannot_fit_is_never_loaded(tmp_path: Path) -> None:
    asked, its = profile("bf16", "nf4"), workers(tmp_path)
    chosen = plan(asked, tmp_path, max_memory=2**20)
    with pytest.raises(ModelsFailed, match="more than 1"):
        await picked(asked, chosen, its)
    assert ("chat", "nf4") not in its.begun and ("chat", "bf16") not in its.begun


async def test_a_server_is_measured_and_not_scored(tmp_path: Path) -> None:
    asked, its = profile("bf16", "nf4", "server"), workers(tmp_path)
    its.far["server"], its.servers = 0.5, {"server"}
    its.scripts["server"] = Script(token_ms=5.0)
    snapshot, _ = await picked(asked, plan(asked, tmp_path), its)
    assert snapshot.pick is not None
    assert snapshot.pick.recommended == "server"
    assert ("score", "server") not in its.begun


async def test_a_stopped_pick_continues_where_it_was(tmp_path: Path) -> None:
    asked, its = profile("bf16", "nf4", "int8"), workers(tmp_path)
    its.hold["int8"] = asyncio.Event()
    stopping: list[run.Picking] = []

    async def stop() -> None:
        await until(lambda: ("score", "int8") in its.begun)
        stopping[0].stop()

    chosen = plan(asked, tmp_path)
    with state.open_store(state.key_of(asked, chosen)) as kept:
        first = run.Picking(asked, chosen, kept, provider=its.provider, start=its.start)
        stopping.append(first)
        snapshot, _ = await asyncio.gather(run.pick(first), stop())
    assert not first.finished
    assert snapshot.pick is not None and "the same command continues" in snapshot.pick.stopped

    again = workers(tmp_path)
    other = plan(asked, tmp_path, max_kld=0.02)  # another limit measures nothing anew
    snapshot, second = await picked(asked, other, again)
    assert second.finished
    done = set(its.begun) - {("score", "int8")}
    assert set(again.begun).isdisjoint(done)
    assert ("score", "int8") in again.begun
    assert snapshot.pick is not None and not snapshot.pick.stopped
    assert snapshot.pick.recommended == "int8"


async def test_stopped_during_a_measurement_keeps_the_answers_so_far(tmp_path: Path) -> None:
    asked, its = profile("bf16", "nf4"), workers(tmp_path)
    chosen = plan(asked, tmp_path)
    with state.open_store(state.key_of(asked, chosen)) as kept:
        picking: run.Picking

        def on_model(label: str, progress: Any) -> None:
            if progress is not None and "round 2" in progress.detail:
                picking.stop()

        picking = run.Picking(
            asked, chosen, kept, provider=its.provider, start=its.start, on_model=on_model
        )
        snapshot = await run.pick(picking)
    assert {turn.round for turn in snapshot.turns} == {1}
    again = workers(tmp_path)
    snapshot, _ = await picked(asked, chosen, again)
    assert {turn.round for turn in snapshot.turns} == {1, 2}
    assert len(snapshot.turns) == 6


async def test_time_that_is_left_goes_to_what_is_undecided(tmp_path: Path) -> None:
    """nf4 and fp4 are equally fast; int8 and bf16 are visited once."""
    asked, its = profile("bf16", "nf4", "int8", "fp4"), workers(tmp_path)
    its.scripts["fp4"].token_ms = its.scripts["nf4"].token_ms
    snapshot, _ = await picked(asked, plan(asked, tmp_path, minutes=60.0), its)
    visits = [label for kind, label in its.begun if kind == "chat"]
    assert visits.count("int8") == visits.count("bf16") == 1
    assert visits.count("nf4") > 1 and visits.count("fp4") > 1
    assert snapshot.pick is not None
    assert snapshot.pick.recommended == "nf4"  # closer than fp4


async def test_no_time_at_all_begins_nothing(tmp_path: Path) -> None:
    asked, its = profile("bf16", "nf4"), workers(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        await picked(asked, plan(asked, tmp_path, minutes=0.0), its)
    assert its.begun == []


async def test_two_of_the_same_at_once_are_refused(tmp_path: Path) -> None:
    asked = profile("bf16", "nf4")
    key = state.key_of(asked, plan(asked, tmp_path))
    with (
        state.open_store(key),
        pytest.raises(UserError, match="the same pick"),
        state.open_store(key),
    ):
        pass


async def test_a_cache_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("QUANTCHAT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be used"), state.open_store("key"):
        pass
