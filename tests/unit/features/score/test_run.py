"""A score from profile to snapshot: real tiny models, scored in this process."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from filelock import FileLock

from fakes.in_process_jobs import InProcessJobs
from fakes.tiny_folder import tiny_folder, tokenizer
from quantchat import corpus, paths
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.errors import ModelsFailed
from quantchat.features.score.run import score
from quantchat.measuring.score_plan import ScorePlan
from quantchat.profile.model import Profile
from quantchat.session.reference import reference_of
from quantchat.snapshot import store
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import ScoredRecord, ScoreRecord
from quantchat.worker.jobs import score as job

TEXT = "The carpenter laid the tape against the rule, and they agreed to a pencil line.\n" * 6
WINDOW = 64

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "prepare_process", lambda workspace: None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two that are not quite it."""
    home = tmp_path_factory.mktemp("models")
    tiny_folder(home / "base")
    tiny_folder(home / "near", scale=7.5)
    tiny_folder(home / "far", scale=4.0)
    tiny_folder(home / "begins", begins=True)
    return home


def profile(models: Path, *names: str) -> Profile:
    variants = [
        {"label": n, "engine": "transformers", "model": str(models / n), "device": "cpu"}
        for n in names
    ]
    return Profile.model_validate({"name": "Tiny", "variants": variants})


def plan(asked: Profile, reference: str | None, folder: Path, **more: Any) -> ScorePlan:
    text = folder / "text"
    text.write_text(TEXT, encoding="utf-8")
    settings = {"tokens": 0, "window": WINDOW, "stride": WINDOW, **more}
    return ScorePlan(corpus.text_file(text), reference_of(asked, reference), **settings)


async def scored(
    asked: Profile,
    reference: str | None,
    folder: Path,
    jobs: InProcessJobs | None = None,
    **more: Any,
) -> tuple[Snapshot, ScoreRecord]:
    jobs = jobs or InProcessJobs()
    chosen = plan(asked, reference, folder, **more)
    return await score(
        asked, chosen, provider=CheckpointBuilder(start=jobs.start), start=jobs.start
    )


def by_label(found: ScoreRecord) -> dict[str, ScoredRecord]:
    return {model.label: model for model in found.models}


def log_probabilities(folder: Path) -> Any:
    """What transformers says of the first window's scored tokens."""
    from transformers import AutoModelForCausalLM

    ids = torch.tensor([tokenizer()(TEXT)["input_ids"][:WINDOW]])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
    return logits[0, WINDOW // 2 : WINDOW - 1].log_softmax(dim=-1)


async def test_from_profile_to_snapshot(models: Path, tmp_path: Path) -> None:
    asked = profile(models, "near", "far")
    jobs = InProcessJobs()
    snapshot, found = await scored(asked, str(models / "base"), tmp_path, jobs)

    roles = [(model.label, model.role) for model in found.models]
    assert roles == [
        ("base", "reference"), ("base, eager attention", "floor"),
        ("near", "variant"), ("far", "variant"),
    ]  # fmt: skip
    assert [place.label for place in jobs.places] == [label for label, _ in roles]
    assert not found.unread
    reference, floor, near, far = found.models
    assert reference.divergence is None
    assert floor.model_info is not None
    assert floor.model_info.attention == "eager"
    assert floor.divergence is not None
    assert near.divergence is not None
    assert far.divergence is not None
    assert floor.divergence.kld_mean.value < 1e-6 < near.divergence.kld_mean.value
    assert near.divergence.kld_mean.value < far.divergence.kld_mean.value
    assert near.divergence.top1_agreement.value > 0.9
    assert near.weights == reference.weights > 0

    setting = found.setting
    assert (setting.window, setting.stride, setting.context) == (64, 64, 33)
    assert setting.tokens == len(TEXT)
    assert setting.positions == len(TEXT) // 64 * 31
    assert setting.begin == ""
    assert found.storage is not None
    assert found.storage.bytes == setting.positions * setting.vocabulary * 2
    assert 0 <= found.storage.kld_mean <= found.storage.kld_max < 1e-5

    assert [variant.label for variant in snapshot.variants] == ["near", "far"]
    assert store.loads(store.dumps(snapshot), where="it") == snapshot
    assert list((paths.cache_dir() / "scoring").iterdir()) == []


async def test_the_pair_is_compared_in_both_directions(models: Path, tmp_path: Path) -> None:
    asked = profile(models, "near", "far")
    _, found = await scored(asked, str(models / "base"), tmp_path, tokens=WINDOW)
    there, back = found.pair
    assert (there.seen_from, there.variant) == ("near", "far")
    assert (back.seen_from, back.variant) == ("far", "near")
    near, far = (log_probabilities(models / name) for name in ("near", "far"))
    expected = float((near.exp() * (near - far)).sum(dim=-1).mean())
    assert there.divergence.kld_mean.value == pytest.approx(expected, rel=1e-3)
    expected = float((far.exp() * (far - near)).sum(dim=-1).mean())
    assert back.divergence.kld_mean.value == pytest.approx(expected, rel=1e-3)
    difference = there.divergence.perplexity_difference
    assert back.divergence.perplexity_difference.value == pytest.approx(-difference.value)
    assert there.divergence.top1_agreement == back.divergence.top1_agreement
    read = by_label(found)
    assert read["near"].perplexity is not None
    assert read["far"].perplexity is not None
    assert difference.value == pytest.approx(
        read["far"].perplexity.value - read["near"].perplexity.value
    )


@pytest.mark.parametrize("reference", ["near", "far"])
async def test_the_reference_may_be_one_of_the_pair(
    models: Path, tmp_path: Path, reference: str
) -> None:
    asked = profile(models, "near", "far", "base")
    jobs = InProcessJobs()
    _, found = await scored(asked, reference, tmp_path, jobs, floor="none")
    assert found.models[0].label == reference
    assert len(found.models) == 3  # each read once
    assert [(one.seen_from, one.variant) for one in found.pair] == [
        ("near", "far"),
        ("far", "near"),
    ]
    assert [job.keep for job in jobs.done] == ["forecasts", "", ""]
    other = {"near": "far", "far": "near"}[reference]
    seen = next(one for one in found.pair if one.seen_from == reference)
    assert by_label(found)[other].divergence == seen.divergence


async def test_another_dtype_is_a_floor_too(models: Path, tmp_path: Path) -> None:
    asked = profile(models, "near", "far")
    _, found = await scored(asked, str(models / "base"), tmp_path, floor="dtype", tokens=64)
    floor = found.models[1]
    assert floor.label == "base, bfloat16"
    assert floor.model_info is not None
    assert floor.model_info.dtype == "bfloat16"
    assert floor.divergence is not None
    assert 1e-7 < floor.divergence.kld_mean.value < 1e-2


async def test_one_that_fails_stops_none_of_the_others(models: Path, tmp_path: Path) -> None:
    (models / "empty").mkdir(exist_ok=True)
    asked = profile(models, "empty", "near", "begins", "far")
    snapshot, found = await scored(asked, str(models / "base"), tmp_path)
    read = by_label(found)
    assert read["empty"].failure is not None
    assert read["empty"].perplexity is None
    assert read["begins"].failure is not None
    assert "into other tokens" in read["begins"].failure.reason
    assert read["near"].divergence is not None
    assert read["far"].divergence is not None
    assert not found.pair
    assert [v.state for v in snapshot.variants] == ["failed", "idle", "failed", "idle"]


async def test_without_its_reference_each_still_has_a_perplexity(
    models: Path, tmp_path: Path
) -> None:
    asked = profile(models, "near", "far")
    _, found = await scored(asked, str(tmp_path / "gone"), tmp_path)
    read = by_label(found)
    assert read["gone"].failure is not None
    assert read["near"].perplexity is not None
    assert read["near"].divergence is None
    assert found.storage is None
    assert len(found.pair) == 2


async def test_where_no_model_can_read_it_says_why(models: Path, tmp_path: Path) -> None:
    asked = profile(models, "near", "far")
    with pytest.raises(ModelsFailed, match="less than one window") as caught:
        await scored(asked, "near", tmp_path, window=1000, stride=1000)
    assert caught.value.where == "near"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_keeps_what_was_read(
    models: Path, tmp_path: Path, number: signal.Signals
) -> None:
    sent: list[object] = []

    def told(label: str, _: object) -> None:
        if label == "far" and not sent:  # a second and a third one end more than the work
            sent.append(number)
            os.kill(os.getpid(), number)

    asked = profile(models, "near", "far", "begins")
    _, found = await scored(
        asked, str(models / "base"), tmp_path, InProcessJobs(told), floor="none"
    )
    assert [model.label for model in found.models] == ["base", "near"]
    assert found.unread == ["far", "begins"]
    assert list((paths.cache_dir() / "scoring").iterdir()) == []


async def test_stopped_before_the_first_was_read_nothing_is_kept(
    models: Path, tmp_path: Path
) -> None:
    sent: list[object] = []

    def told(label: str, _: object) -> None:
        if not sent:
            sent.append(label)
            os.kill(os.getpid(), signal.SIGINT)

    jobs = InProcessJobs(told)
    with pytest.raises(KeyboardInterrupt):
        await scored(profile(models, "near", "far"), "near", tmp_path, jobs)


async def test_whoever_waits_for_it_may_be_cancelled(models: Path, tmp_path: Path) -> None:
    begun = asyncio.Event()
    jobs = InProcessJobs(lambda label, step: begun.set())
    task = asyncio.ensure_future(scored(profile(models, "near", "far"), "near", tmp_path, jobs))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_killed_run_left_is_removed(models: Path, tmp_path: Path) -> None:
    home = paths.private(paths.cache_dir() / "scoring")
    for name in ("left", "held"):
        paths.private(home / name)
        (home / name / "forecasts").write_bytes(b"gigabytes")
        (home / f"{name}.lock").touch()
    with FileLock(home / "held.lock"):
        await scored(profile(models, "near", "far"), "near", tmp_path, floor="none", tokens=64)
        assert sorted(place.name for place in home.iterdir()) == ["held", "held.lock"]


async def test_the_text_is_read_once_the_same_by_all(models: Path, tmp_path: Path) -> None:
    jobs = InProcessJobs()
    asked = profile(models, "near", "far")
    _, found = await scored(asked, "near", tmp_path, jobs, window=32, stride=8, tokens=100)
    assert found.setting.context == 24
    assert found.setting.positions == len(range(0, 100 - 32 + 1, 8)) * 8
    assert jobs.done[0].ids_sha256 == ""
    assert {job.ids_sha256 for job in jobs.done[1:]} == {found.setting.ids_sha256}
    nll = [model.perplexity.value for model in found.models if model.perplexity]
    assert numpy.isfinite(nll).all()
