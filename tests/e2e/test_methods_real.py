"""Each method on the demo's model: it loads, answers and scores.

Each checkpoint is built once, in a minute or two, and cached.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.variant_files import estimate_of, files_to_load
from quantchat.engines.registry import engine_of
from quantchat.host.job_runner import run_job
from quantchat.host.worker_process import Place, start_worker
from quantchat.profile.model import Generation, Profile
from quantchat.session.requests import load_request, single_prompt_request
from quantchat.wire.jobs import ScoreJob, Workspace
from quantchat.wire.messages import Failed, Finished, Ready

pytestmark = pytest.mark.model

GOAL = 0.02

# Not AWQ: quantizing the demo's model with it takes a CPU more than ten minutes.
METHODS: list[tuple[dict[str, Any], str]] = [
    ({"engine": "torchao", "quant_type": "int4"}, "Linear of Int4OpaqueTensor, int4 g64"),
    ({"engine": "torchao", "quant_type": "int8"}, "Linear of Int8Tensor, int8"),
    ({"engine": "torchao", "quant_type": "int8-dynamic"}, "Linear of Int8Tensor, int8-dynamic"),
    ({"engine": "torchao", "quant_type": "float8"}, "Linear of Float8Tensor, float8"),
    ({"engine": "torchao", "quant_type": "nvfp4"}, "Linear of NVFP4Tensor, nvfp4"),
    ({"engine": "hqq", "bits": 4}, "HQQLinear 4-bit g64"),
    ({"engine": "hqq", "bits": 3}, "HQQLinear 3-bit g64"),
]


@pytest.mark.parametrize(("keys", "kernel"), METHODS, ids=lambda value: str(value))
async def test_it_loads_answers_and_scores(
    keys: dict[str, Any],
    kernel: str,
    demo_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUANTCHAT_CACHE", str(demo_cache))
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    common = {"model": "demo:smollm2-135m-instruct", "device": "cpu"}
    # quantchat's own loop would first check itself, with many products of kernels that are slow.
    variants = [
        {"label": "it", "decode": "generate", **common, **keys},
        {"label": "base", "engine": "transformers", **common},
    ]
    spec = Profile.model_validate({"name": "one", "variants": variants}).variants[0]
    for library in engine_of(spec).libraries:
        if importlib.util.find_spec(library.module) is None:
            pytest.skip(f"{library.package} is not installed: {library.command}")
    made = await CheckpointBuilder().prepare(spec, lambda progress: None)
    files, _ = files_to_load(spec, fetch=False)
    planned = estimate_of(spec, files, False, 64)

    worker = await start_worker(Place("test"))
    try:
        worker.send(load_request(spec, made))
        async for event in worker.events():
            assert not isinstance(event, Failed), event
            if isinstance(event, Ready):
                assert (event.resolved.engine, event.resolved.kernel) == (spec.engine, kernel)
                assert event.ledger.weights == pytest.approx(planned.weights, rel=GOAL)
                assert event.ledger.overhead == pytest.approx(planned.overhead, rel=GOAL)
                question = "What is the capital of France?"
                worker.send(
                    single_prompt_request(1, question, Generation(max_new_tokens=3), threads=1)
                )
            if isinstance(event, Finished):
                assert event.text.strip() and event.output_tokens == 3
                break
    finally:
        await worker.close()

    text = tmp_path / "text.txt"
    text.write_text("The capital of France is Paris. " * 12, encoding="utf-8")
    job = ScoreJob(
        load_request(spec, made), str(text), 64, 64, Workspace(str(tmp_path), str(tmp_path))
    )
    scored = await run_job(start_worker, job, lambda done, total, detail: None)
    assert scored.resolved.kernel == kernel and scored.weights > 0
    # The repetitions are foretold, at 3 bits too; random weights would need ln(49152) = 10.8 nats.
    assert sum(_floats(tmp_path / "nll")) / scored.positions < 3


def _floats(file: Path) -> list[float]:
    from array import array

    found = array("d")
    found.frombytes(file.read_bytes())
    return found.tolist()
