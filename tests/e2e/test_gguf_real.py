"""The demo's GGUF file: computed by llama.cpp from its quantized weights, and by transformers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.variant_files import estimate_of, files_to_load
from quantchat.host.worker_process import Place, start_worker
from quantchat.profile.model import Generation, Profile
from quantchat.session.requests import load_request, single_prompt_request
from quantchat.wire.messages import Failed, Finished, Memory, Ready

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

GOAL = 0.02
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS = 6


@pytest.fixture(autouse=True)
def _folders(demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_CACHE", str(demo_cache))
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


async def loaded(**keys: Any) -> tuple[Any, Ready, Memory, Finished]:
    """Load the demo's model with `keys`; return the variant, what runs, memory and an answer."""
    common = {"model": "demo:smollm2-135m-instruct", "device": "cpu"}
    variants = [
        {"label": "it", **common, **keys},
        {"label": "base", "engine": "transformers", **common},
    ]
    spec = Profile.model_validate({"name": "one", "variants": variants}).variants[0]
    made = await CheckpointBuilder().prepare(spec, lambda progress: None)
    ready: Ready | None = None
    memory: Memory | None = None
    worker = await start_worker(Place("test"))
    try:
        worker.send(load_request(spec, made))
        async for event in worker.events():
            assert not isinstance(event, Failed), event
            if isinstance(event, Ready):
                ready = event
                question = "What is the capital of France?"
                worker.send(
                    single_prompt_request(1, question, Generation(max_new_tokens=TOKENS), threads=1)
                )
            if isinstance(event, Memory):
                memory = event
            if isinstance(event, Finished):
                assert ready is not None and memory is not None
                return spec, ready, memory, event
    finally:
        await worker.close()
    raise AssertionError("unreachable: the events end with an exception")


async def test_llama_cpp_answers_from_the_quantized_weights() -> None:
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed: quantchat env create gguf")
    spec, ready, memory, answer = await loaded(engine="gguf", type_k="q8_0", type_v="q8_0")
    model_info = ready.model_info
    assert model_info.kernel.startswith("llama.cpp Q4_1") and "CPU" in model_info.kernel
    assert model_info.decode == "llama.cpp, KV cache q8_0/q8_0"
    assert 4.5 < model_info.bits_per_weight < 6.5  # 5 of Q4_1, more of the embedding
    planned = estimate_of(spec, files_to_load(spec, fetch=False)[0], False, 64)
    assert ready.ledger.weights == pytest.approx(planned.weights, rel=GOAL)
    assert ready.ledger.overhead == pytest.approx(planned.overhead, rel=GOAL)
    assert memory.ledger.kv_cache == pytest.approx(planned.kv_cache, rel=GOAL)
    # Not its words: the file's "L" and "The" are nearly tied, and llama.cpp rounds activations.
    assert answer.text.strip() and answer.output_tokens == TOKENS


async def test_transformers_dequantizes_it_and_says_so() -> None:
    spec, ready, _, answer = await loaded(
        engine="transformers", gguf_file=FILE, dtype="bfloat16", decode="generate"
    )
    planned = estimate_of(spec, files_to_load(spec, fetch=False)[0], False, 64)
    assert ready.ledger.weights == pytest.approx(planned.weights, rel=GOAL)
    assert ready.model_info.bits_per_weight == pytest.approx(16, rel=GOAL)
    shown = f"{ready.model_info.kernel}; {ready.note}"
    assert "dequantized" in shown and "bfloat16" in shown, shown
    assert answer.text.startswith("The capital of France is") and answer.output_tokens == TOKENS
