"""Where the error of a variant comes from: a layer that is spoilt on purpose is named first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fakes.in_process_jobs import InProcessJobs
from fakes.printed_document import printed
from fakes.tiny_folder import tiny_folder
from quantchat import corpus
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.features.score.run import score
from quantchat.features.score.tables import blocks
from quantchat.measuring.score_plan import ScorePlan
from quantchat.profile.model import Profile
from quantchat.session.reference import reference_of
from quantchat.snapshot import store
from quantchat.snapshot.score import LocatedRecord
from quantchat.worker.jobs import locate

pytestmark = pytest.mark.usefixtures("own_folders")

SPOILT = "model.layers.1.mlp.down_proj"


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from quantchat.worker.jobs import score as score_job

    monkeypatch.setattr(locate, "prepare_process", lambda workspace: None)
    monkeypatch.setattr(score_job, "prepare_process", lambda workspace: None)


@pytest.fixture
def pair(tmp_path: Path) -> Profile:
    """A tiny model, and its copy with noise in every layer and most in one module of layer 1."""
    good = tiny_folder(tmp_path / "good", num_hidden_layers=3)
    bad = tmp_path / "bad"
    shutil.copytree(good, bad)
    weights = load_file(bad / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    for name, weight in weights.items():
        if ".layers." in name and weight.dim() == 2:
            much = 2.0 if name.startswith(SPOILT) else 0.01
            noise = torch.randn(weight.shape, generator=generator).to(weight.dtype)
            weights[name] = weight + much * weight.float().std() * noise
    save_file(weights, bad / "model.safetensors", metadata={"format": "pt"})
    variants: list[dict[str, Any]] = [
        {"label": name, "engine": "transformers", "model": str(tmp_path / name), "device": "cpu"}
        for name in ("good", "bad")
    ]
    return Profile.model_validate({"name": "Tiny", "variants": variants})


async def located(profile: Profile, tmp_path: Path) -> tuple[LocatedRecord, str]:
    text = tmp_path / "text"
    text.write_text("Some words, and then some more of them. " * 8, encoding="utf-8")
    plan = ScorePlan(
        corpus=corpus.text_file(text), reference=reference_of(profile, "good"), tokens=200,
        window=32, stride=32, floor="none",
    )  # fmt: skip
    jobs = InProcessJobs()
    provider = CheckpointBuilder(start=jobs.start)
    snapshot, found = await score(profile, plan, provider=provider, start=jobs.start, where=True)
    assert store.loads(store.dumps(snapshot), where="it").score == found
    (bad,) = (one for one in found.models if one.label == "bad")
    assert bad.located is not None, bad.note
    assert all(one.located is None for one in found.models if one is not bad)
    return bad.located, printed(blocks(found))


async def test_the_spoilt_layer_and_module_are_named_first(pair: Profile, tmp_path: Path) -> None:
    found, text = await located(pair, tmp_path)
    layers = [part for part in found.parts if part.layer]
    modules = [part for part in found.parts if not part.layer]
    assert [part.name for part in layers] == [f"model.layers.{n}" for n in range(3)]
    assert max(layers, key=lambda part: part.kld).name == "model.layers.1"
    assert max(modules, key=lambda part: part.kld).name == SPOILT
    assert len(modules) == 3 * 7
    # One layer makes nearly all of the error, and alone does what it does in the whole.
    assert layers[1].kld == pytest.approx(found.whole, rel=0.2)
    assert layers[0].kld < 0.01 * layers[1].kld
    lines = [line.strip() for line in text.splitlines() if "model.layers." in line]
    assert lines[0].startswith("model.layers.1 ") and SPOILT in lines[3]


async def test_layers_of_another_engine_are_put_into_the_reference(
    pair: Profile, tmp_path: Path
) -> None:
    quantized = {"label": "bad", "engine": "bitsandbytes", "quant_type": "nf4", "device": "cpu"}
    good = pair.variants[0].model_dump(exclude_defaults=True)
    variants = [good, {**quantized, "model": str(tmp_path / "good")}]
    found, _ = await located(Profile.model_validate({"name": "4", "variants": variants}), tmp_path)
    assert all(0 < part.kld < found.whole for part in found.parts)
    total = sum(part.kld for part in found.parts if part.layer)
    assert total == pytest.approx(found.whole, rel=0.5)


async def test_the_reference_is_as_before_each_exchange(pair: Profile, tmp_path: Path) -> None:
    """A module that is left in would add its error to that of each later one."""
    found, _ = await located(pair, tmp_path)
    assert found.parts[2].kld < 0.01 * found.parts[1].kld  # layer 2, after layer 1
