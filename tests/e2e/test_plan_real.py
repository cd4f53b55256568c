"""The plan against real loads: the demo's variants, and small models of many architectures."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.headers import read_folder
from quantchat.checkpoints.variant_files import files_of, predicted
from quantchat.engines.bitsandbytes import BitsAndBytes
from quantchat.engines.memory import estimate
from quantchat.engines.transformers import Transformers
from quantchat.host.worker_process import Place, Worker, start_worker
from quantchat.measuring.memory_plan import make_plan
from quantchat.profile import library
from quantchat.profile.load import load
from quantchat.profile.model import AnyVariant, Profile
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.messages import (
    Failed,
    Finished,
    Generate,
    LoadModel,
    Memory,
    Message,
    Ready,
    Sampling,
)
from quantchat.wire.protocol import Event

pytestmark = pytest.mark.model

GOAL = 0.05
E = TypeVar("E", bound=Event)


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Worker]:
    worker = await start_worker(Place("test"))
    try:
        yield worker
    finally:
        await worker.close()


async def wait_for(worker: Worker, kind: type[E]) -> tuple[E, list[Event]]:
    before: list[Event] = []
    async for event in worker.events():
        if isinstance(event, kind):
            return event, before
        assert not isinstance(event, Failed), event
        before.append(event)
    raise AssertionError("unreachable: the events end with an exception")


@pytest.fixture
def demo(demo_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.setenv("QUANTCHAT_CACHE", str(demo_cache))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return load(library.find("demo"))


DEMO_GPTQ = {"engine": "gptq", "quantize": {"bits": 4, "group_size": 64}}
VARIANTS = [
    DEMO_GPTQ,
    # This kernel unpacks each weight for each token: the check of another loop would take a minute.
    {**DEMO_GPTQ, "kernel": "torch", "decode": "generate"},
    {"engine": "bitsandbytes", "double_quant": True},
    {"engine": "bitsandbytes", "double_quant": False},
    {"engine": "bitsandbytes", "quant_type": "int8"},
    {"engine": "transformers", "dtype": "bfloat16"},
    {"engine": "transformers", "dtype": "float32"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
async def test_weights_and_cache_are_as_planned(demo: Profile, options: dict[str, Any]) -> None:
    variants = [
        {"label": "A", "model": "demo:smollm2-135m-instruct", "device": "cpu", **options},
        {"label": "B", "engine": "transformers", "model": "demo:smollm2-135m-instruct"},
    ]
    profile = Profile.model_validate({"name": "one", "variants": variants})
    spec = profile.variants[0]
    planned = make_plan(profile, DeviceSampler().sample()).variants[0]
    assert planned.estimate is not None
    assert planned.notes == []
    made = CheckpointBuilder().find(spec)
    assert made is not None
    async with running() as worker:
        command = LoadModel(spec.engine, made.model, spec.options, device="cpu", threads=1)
        worker.send(replace(command, dtype=spec.dtype, decode=spec.decode))
        ready, _ = await wait_for(worker, Ready)
        assert ready.ledger.weights == pytest.approx(planned.estimate.weights, rel=GOAL)
        assert sum(ready.ledger.weights_by_dtype.values()) == ready.ledger.weights
        assert ready.ledger.overhead == pytest.approx(planned.estimate.overhead, rel=0.01)
        assert 0 < ready.ledger.peak_at_ns <= ready.ledger.at_ns
        assert ready.ledger.peak >= ready.ledger.process
        told = [Message("user", "Count to a hundred.")]
        worker.send(Generate(1, told, Sampling(), 2, threads=1, prompt_tokens=200, ignore_eos=True))
        _, events = await wait_for(worker, Finished)
    ledger = [event.ledger for event in events if isinstance(event, Memory)][-1]
    # The last token is said, and never computed.
    found = predicted(spec, files_of(spec, ready.model_info), ready.model_info, 200 + 2 - 1)
    assert found is not None
    assert ledger.kv_cache == found.kv_cache


# ------------------------------------------------------------ other architectures

SMALL: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
}
MAKES: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "mistral": {**SMALL, "sliding_window": 16},
    "qwen2": {**SMALL, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
    "qwen3": {**SMALL, "head_dim": 64, "tie_word_embeddings": True},
    "gemma2": {**SMALL, "sliding_window": 16, "head_dim": 32},
    "phi3": SMALL,
    "gpt2": {"n_embd": 256, "n_layer": 4, "n_head": 8, "vocab_size": 1000, "n_positions": 512},
    "mixtral": {**SMALL, "num_local_experts": 4},
    "deepseek_v3": {
        **SMALL,
        "num_key_value_heads": 8,
        "q_lora_rank": 64,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 128,
        "first_k_dense_replace": 1,
    },
}
TOKENS = 40


@pytest.mark.parametrize("make", MAKES)
def test_other_makes(make: str, tmp_path: Path) -> None:
    """Random weights, saved, loaded with and without quantization, and counted."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    from quantchat.worker.decode.growing_cache import growing_cache
    from quantchat.worker.memory import TensorBytes, kv_cache_bytes

    config = AutoConfig.for_model(make, dtype="bfloat16", **MAKES[make])
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path)
    files = read_folder(tmp_path)

    def counted(spec: AnyVariant, **more: Any) -> Any:
        model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, **more).eval()
        expected = estimate(spec, files, cuda=False, tokens=TOKENS)
        held = TensorBytes.of(model)
        assert held.by_dtype.total() == pytest.approx(expected.weights, rel=0.005)
        assert held.overhead == pytest.approx(expected.overhead, rel=0.005)
        return model, expected

    plain = Transformers(label="t", engine="transformers", model="m/m")
    model, expected = counted(plain)
    cache = growing_cache(model.config)
    with torch.inference_mode():
        for token in range(TOKENS):
            model(input_ids=torch.tensor([[token % 7]]), past_key_values=cache, use_cache=True)
    assert kv_cache_bytes(cache) == expected.kv_cache
    nf4 = BitsAndBytes(label="b", engine="bitsandbytes", model="m/m")
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )
    counted(nf4, quantization_config=quantization)
