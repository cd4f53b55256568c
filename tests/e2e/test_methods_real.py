"""Each method that quantizes on loading: the demo's model answers, and a tiny one is scored.

The demo's model is loaded once for each method, because quantizing it takes a CPU up to a minute.
"""

from __future__ import annotations

import importlib.util
from array import array
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from tokenizers import Tokenizer

from fakes.in_process_jobs import InProcessJobs
from fakes.tiny_folder import tiny_folder
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.provider import PreparedModel
from quantchat.checkpoints.variant_files import estimate_of, files_to_load
from quantchat.engines.registry import engine_of
from quantchat.host.job_runner import run_job
from quantchat.host.worker_process import Place, start_worker
from quantchat.profile.model import AnyVariant, Generation, Profile
from quantchat.session.requests import load_request, single_prompt_request
from quantchat.wire.jobs import ScoreJob, Workspace
from quantchat.wire.messages import (
    Failed,
    Finished,
    LoadModel,
    Message,
    Ready,
    ScoreTokens,
    TokenScores,
)

pytestmark = pytest.mark.model

GOAL = 0.02

METHODS: list[tuple[dict[str, Any], str]] = [
    ({"engine": "torchao", "quant_type": "int4"}, "Linear of Int4OpaqueTensor, int4 g64"),
    ({"engine": "torchao", "quant_type": "int8"}, "Linear of Int8Tensor, int8"),
    ({"engine": "torchao", "quant_type": "int8-dynamic"}, "Linear of Int8Tensor, int8-dynamic"),
    ({"engine": "torchao", "quant_type": "float8"}, "Linear of Float8Tensor, float8"),
    ({"engine": "torchao", "quant_type": "nvfp4"}, "Linear of NVFP4Tensor, nvfp4"),
    ({"engine": "hqq", "bits": 4}, "HQQLinear 4-bit g64"),
]


MADE_BEFORE: list[tuple[dict[str, Any], str]] = [
    ({"engine": "awq", "quantize": {"bits": 4, "group_size": 64}}, "TorchAtenAwqLinear 4-bit g64"),
    (
        {"engine": "autoround", "quantize": {"bits": 4, "group_size": 64, "iters": 50}},
        "TorchAtenLinear 4-bit g64",
    ),
]
"""Methods with which a CPU takes ten minutes to quantize the demo's model: tested where
`benchmarks/methods.py` has put the checkpoint into the user's cache."""

REPEATED = "The capital of France is Paris. " * 12


def variant(keys: dict[str, Any], model: str) -> AnyVariant:
    """Return the first variant of a profile; skip the test if a library of it is missing."""
    common = {"model": model, "device": "cpu"}
    # quantchat's own loop would first check itself, with many products of kernels that are slow.
    variants = [
        {"label": "it", "decode": "generate", **common, **keys},
        {"label": "base", "engine": "transformers", **common},
    ]
    spec = Profile.model_validate({"name": "one", "variants": variants}).variants[0]
    for library in engine_of(spec).libraries:
        if importlib.util.find_spec(library.module) is None:
            pytest.skip(f"{library.package} is not installed: {library.command}")
    return spec


@pytest.mark.parametrize(("keys", "kernel"), [*METHODS, *MADE_BEFORE], ids=str)
async def test_it_loads_answers_and_predicts(
    keys: dict[str, Any],
    kernel: str,
    demo_cache: Path,
    demo_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUANTCHAT_CACHE", str(demo_cache))
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    spec = variant(keys, "demo:smollm2-135m-instruct")
    if "quantize" in keys and CheckpointBuilder().find(spec) is None:
        pytest.skip("the checkpoint is made by `python benchmarks/methods.py`, in ten minutes")
    made = await CheckpointBuilder().prepare(spec, lambda progress: None)
    files, _ = files_to_load(spec, fetch=False)
    planned = estimate_of(spec, files, False, 64)
    tokens = Tokenizer.from_file(str(demo_base / "tokenizer.json")).encode(REPEATED).ids

    worker = await start_worker(Place("test"))
    try:
        worker.send(load_request(spec, made))
        async for event in worker.events():
            assert not isinstance(event, Failed), event
            if isinstance(event, Ready):
                assert (event.model_info.engine, event.model_info.kernel) == (spec.engine, kernel)
                assert event.ledger.weights == pytest.approx(planned.weights, rel=GOAL)
                assert event.ledger.overhead == pytest.approx(planned.overhead, rel=GOAL)
                question = "What is the capital of France?"
                worker.send(
                    single_prompt_request(1, question, Generation(max_new_tokens=3), threads=1)
                )
            if isinstance(event, Finished):
                assert event.text.strip() and event.output_tokens == 3
                worker.send(ScoreTokens(1, [Message("user", "Repeat.")], tokens, threads=1))
            if isinstance(event, TokenScores):
                assert len(event.logprobs) == len(tokens), event.problem
                # The repetitions are foretold; random weights would need
                # ln(49152) = 10.8 nats for each token.
                assert -mean(event.logprobs[len(tokens) // 2 :]) < 3
                break
    finally:
        await worker.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny model whose widths are multiples of 64 but not of 128."""
    widths: dict[str, Any] = {"hidden_size": 192, "intermediate_size": 320, "head_dim": 48}
    return tiny_folder(tmp_path_factory.mktemp("tiny"), dtype="bfloat16", **widths)


@pytest.mark.parametrize(
    ("keys", "kernel"),
    [*METHODS, ({"engine": "hqq", "bits": 3}, "HQQLinear 3-bit g64")],
    ids=str,
)
async def test_it_is_scored(
    keys: dict[str, Any],
    kernel: str,
    tiny: Path,
    tmp_path: Path,
) -> None:
    spec = variant(keys, str(tiny))
    text = tmp_path / "text.txt"
    text.write_text(REPEATED, encoding="utf-8")

    async def surprisals(load: LoadModel, kernel: str) -> array[float]:
        folder = tmp_path / load.engine
        folder.mkdir()
        job = ScoreJob(load, str(text), 64, 64, Workspace(str(folder), str(folder)))
        scored = await run_job(InProcessJobs().start, job, lambda done, total, detail: None)
        assert scored.model_info.kernel == kernel and scored.weights > 0
        found = array("d", (folder / "nll").read_bytes())
        assert len(found) == scored.positions > 100
        return found

    load = load_request(spec, PreparedModel(str(tiny)))
    ours = await surprisals(load, kernel)
    plain = await surprisals(
        replace(load, engine="transformers", loader="", options={}), "not quantized"
    )
    # Rounded, but near: two models that know nothing of each other differ by half of it and more.
    apart = mean(abs(one - other) for one, other in zip(ours, plain, strict=True))
    assert 0 < apart < mean(plain) / 4
