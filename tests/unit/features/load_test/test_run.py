"""A load test from profile to snapshot: real tiny models and a server on loopback."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.in_process_jobs import InProcessJobs
from fakes.openai_server import serving
from fakes.served_pair import served_pair
from fakes.tiny_folder import tiny_folder
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.document.markdown import markdown
from quantchat.errors import ModelsFailed, UserError
from quantchat.features.load_test import run
from quantchat.features.load_test.plan import LoadTestPlan
from quantchat.features.load_test.run import load_test
from quantchat.features.load_test.tables import data_table
from quantchat.measuring.memory_plan import VariantPlan, plan_variant
from quantchat.profile.load import loads
from quantchat.profile.model import Profile
from quantchat.report.content import content
from quantchat.snapshot import store
from quantchat.snapshot.load_test import LoadTestRecord, points
from quantchat.snapshot.schema import Snapshot
from quantchat.wire.jobs import LoadTestLevel
from quantchat.wire.messages import Progress
from quantchat.worker.jobs import batches

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "prepare_process", lambda workspace, background: None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models")
    tiny_folder(home / "one")
    tiny_folder(home / "other", scale=4.0)
    return home


def local(models: Path, *names: str) -> Profile:
    variants = [
        {"label": n, "engine": "transformers", "model": str(models / n), "device": "cpu"}
        for n in names
    ]
    return Profile.model_validate({"name": "Tiny", "variants": variants})


def plan(*levels: LoadTestLevel, **more: Any) -> LoadTestPlan:
    settings = {
        "prompts": ("Hello",), "prompt_tokens": 12, "output_tokens": 4, "mixed": False,
        "requests": 4, "rounds": 3, "seed": 1, "slo": "ttft_ms < 100000", **more,
    }  # fmt: skip
    return LoadTestPlan(levels=levels, **settings)


async def do(
    asked: Profile, chosen: LoadTestPlan, jobs: InProcessJobs | None = None
) -> tuple[Snapshot, LoadTestRecord]:
    jobs = jobs or InProcessJobs()
    provider = CheckpointBuilder(start=jobs.start)
    return await load_test(asked, chosen, provider=provider, start=jobs.start)


async def test_local_models_decode_batches(models: Path, tmp_path: Path) -> None:
    snapshot, found = await do(
        local(models, "one", "other"), plan(LoadTestLevel(1), LoadTestLevel(2))
    )
    for model in found.models:
        first, second = points(found, model)
        assert (first.name, second.name) == ("1", "2")
        assert first.figures and second.figures
        assert (first.figures.requests, second.figures.requests) == (3, 6)
        assert second.figures.output_tps.low is not None, "three rounds have an interval"
        assert second.kv_bytes == 2 * first.kv_bytes > 0
        assert model.model_info and model.model_info.decode.startswith("static batch")
    saved = store.load(store.save(snapshot, tmp_path))
    assert saved.load_test == found, "it is read as it was saved"

    page = markdown(content([("one.json", saved)]), "").decode()
    assert "other ÷ one" in page
    assert "Throughput and latency under load" in page
    rows = data_table([("one.json", saved)]).rows
    assert len(rows) == 2 * 3 * (1 + 2)


async def test_servers_get_their_requests_at_once(tmp_path: Path) -> None:
    with serving() as server:
        asked = loads(served_pair(server.url), where="p.toml", folder=tmp_path)
        snapshot, found = await do(
            asked, plan(LoadTestLevel(1), LoadTestLevel(4), requests=5, rounds=2)
        )
    assert snapshot.load_test == found
    for model in found.models:
        assert [point.name for point in points(found, model)] == ["1", "4"]
        assert all(p.figures and p.figures.requests == 10 for p in points(found, model))
        assert model.tokens_counted


async def test_a_batch_that_the_plan_says_does_not_fit_is_not_tried(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = 1

    def planned(*args: Any, **more: Any) -> VariantPlan:
        return replace(plan_variant(*args, **more), largest_batch=fits)

    monkeypatch.setattr(run, "plan_variant", planned)
    asked = local(models, "one", "other")
    _, found = await do(asked, plan(LoadTestLevel(1), LoadTestLevel(2), LoadTestLevel(4)))
    left_out = found.models[0].left_out
    assert "batches of 2, 4 were not tried: by the estimate at most 1 fit" in left_out
    assert {one.batch for one in found.models[0].batches} == {1}
    fits = 0
    with pytest.raises(ModelsFailed, match="batches of 1 were not tried"):
        await do(asked, plan(LoadTestLevel(1)))


async def test_more_tokens_than_the_context_has_are_refused(models: Path) -> None:
    with pytest.raises(ModelsFailed, match="the model takes"):
        await do(local(models, "one", "other"), plan(LoadTestLevel(1), prompt_tokens=10**6))


async def test_what_was_done_before_a_stop_is_kept(models: Path) -> None:
    def stop(label: str, step: Progress) -> None:
        if label == "other":
            os.kill(os.getpid(), signal.SIGTERM)

    asked = local(models, "one", "other")
    _, found = await do(asked, plan(LoadTestLevel(1)), InProcessJobs(stop))
    first, *stopped = found.models
    assert (first.label, first.left_out) == ("one", "")
    assert [*(one.label for one in stopped), *found.undone] == ["other"]
    assert all(one.left_out == "stopped before its last round" for one in stopped)


async def test_a_rate_is_for_servers(models: Path) -> None:
    with pytest.raises(UserError, match="cannot arrive at a rate"):
        await do(local(models, "one", "other"), plan(LoadTestLevel(0, 2.0)))
