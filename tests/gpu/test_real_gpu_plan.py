"""On a real GPU: planned against used memory, and energy counter against power meter."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.host.worker_process import Place, start_worker
from quantchat.measuring.memory_plan import make_plan
from quantchat.profile.model import Profile
from quantchat.system.gpus import Gpus
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.messages import Failed, LoadModel, Ready

pytestmark = pytest.mark.gpu


@pytest.mark.model
@pytest.mark.parametrize(
    "options",
    [
        {"engine": "gptq", "quantize": {"bits": 4, "group_size": 64}, "kernel": "triton"},
        {"engine": "bitsandbytes", "double_quant": True},
        {"engine": "bitsandbytes", "double_quant": False},
        {"engine": "transformers", "dtype": "bfloat16"},
    ],
    ids=str,
)
async def test_weights_are_as_planned(
    torch: Any,
    options: dict[str, Any],
    demo_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUANTCHAT_CACHE", str(demo_cache))
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))
    variants = [
        {"label": "A", "model": "demo:smollm2-135m-instruct", "device": "cuda:0", **options},
        {"label": "B", "engine": "transformers", "model": "demo:smollm2-135m-instruct"},
    ]
    profile = Profile.model_validate({"name": "one", "variants": variants})
    spec = profile.variants[0]
    planned = make_plan(profile, DeviceSampler().sample()).variants[0].estimate
    made = CheckpointBuilder().find(spec)
    assert planned is not None
    assert made is not None
    worker = await start_worker(Place("test"))
    try:
        worker.send(
            LoadModel(spec.engine, made.model, spec.options, dtype=spec.dtype, device="cuda:0")
        )
        async for event in worker.events():
            assert not isinstance(event, Failed), event
            if isinstance(event, Ready):
                assert event.ledger.weights == pytest.approx(planned.weights, rel=0.05)
                break
    finally:
        await worker.close()


def test_energy_is_power_over_time(torch: Any) -> None:
    gpus = Gpus()
    if gpus.energy_mj(0) is None:
        pytest.skip("this GPU does not count its energy")
    matrix = torch.randn(4096, 4096, device="cuda:0")
    before, began, powers = gpus.energy_mj(0), time.monotonic(), []
    while time.monotonic() - began < 3:
        matrix = torch.nn.functional.normalize(matrix @ matrix)
        torch.cuda.synchronize()
        powers += [gpu.power_w for gpu in gpus.sample()[:1] if gpu.power_w is not None]
    after, seconds = gpus.energy_mj(0), time.monotonic() - began
    assert before is not None
    assert after is not None
    mean = (after - before) / 1000 / seconds
    # Both lag, each in its own way: it is the same board and no other order of magnitude.
    assert min(powers) / 2 < mean < max(powers) * 2
