"""A variant whose checkpoint AutoRound makes: in each format it is built, loads, and answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import AutoModelForCausalLM

from fakes.byte_tokenizer import byte_folder
from fakes.greedy_answer import greedy_answer
from fakes.tiny_folder import tiny_folder
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.gguf_header import read_gguf
from quantchat.checkpoints.headers import read_folder
from quantchat.checkpoints.variant_files import estimate_of, files_to_load
from quantchat.engines.quantize import GgufFormat
from quantchat.engines.registry import engine_of
from quantchat.estimate.gguf_types import built_files
from quantchat.profile.model import AnyVariant, Profile
from quantchat.session.requests import load_request
from quantchat.wire.jobs import GgufSettings, QuantizeGgufJob, Workspace
from quantchat.wire.messages import Finished, LoadModel, Ready
from quantchat.worker.jobs import quantize_gguf

MOST = 8
MOST_DIVERGENCE = {2: 1.5, 3: 0.5, 4: 0.2, 5: 0.05, 6: 0.02, 8: 0.002}
"""Key: bits; value: greatest KL divergence in nats from the base, whose weights are random."""
TEXTS = ("one two three four", "five six", "seven eight nine ten eleven")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("QUANTCHAT_CACHE", str(tmp_path / "cache"))


def variant(folder: Path, engine: str, **quantize: Any) -> AnyVariant:
    """Return a variant of `engine` with the table `quantize`, calibrated on a short text."""
    text = folder / "text.jsonl"
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in TEXTS))
    common = {"model": str(folder / "source"), "device": "cpu"}
    table = {"calibration": str(text), "samples": 2, "sample_tokens": 16, "iters": 2, **quantize}
    variants = [
        {"label": "it", "engine": engine, "quantize": table, **common},
        {"label": "base", "engine": "transformers", **common},
    ]
    return Profile.model_validate({"name": "one", "variants": variants}).variants[0]


async def answered(spec: AnyVariant) -> tuple[Ready, Finished, float]:
    """Build and load `spec`; return what runs, a greedy answer, and the planned bytes."""
    made = await CheckpointBuilder().prepare(spec, lambda progress: None)
    files, _ = files_to_load(spec, fetch=False)
    planned = estimate_of(spec, files, False, 64)
    ready, answer = await greedy_answer(load_request(spec, made), MOST)
    return ready, answer, planned.weights


@pytest.mark.parametrize(
    ("quantize", "label", "kernel"),
    [
        ({"format": "auto_gptq"}, "AutoRound 4-bit", "TorchAtenLinear 4-bit g32"),
        ({"format": "auto_awq"}, "AutoRound 4-bit (AWQ)", "TorchAtenAwqLinear 4-bit g32"),
        (
            {"format": "auto_awq", "sym": False},
            "AutoRound 4-bit (AWQ)",
            "TorchAtenAwqLinear 4-bit g32",
        ),
    ],
    ids=str,
)
async def test_a_format_of_safetensors(
    tmp_path: Path, quantize: dict[str, Any], label: str, kernel: str
) -> None:
    pytest.importorskip("auto_round", reason="auto-round is not installed")
    tiny_folder(tmp_path / "source", hidden_size=128, intermediate_size=256)
    spec = variant(tmp_path, "autoround", group_size=32, **quantize)
    assert engine_of(spec).label(spec) == label
    ready, answer, planned = await answered(spec)
    assert ready.model_info.kernel == kernel
    assert answer.output_tokens == MOST
    assert ready.ledger.weights == pytest.approx(planned, rel=0.02)


@pytest.mark.parametrize("form", ["q4_0", "q4_k_m"])
async def test_a_gguf_file(tmp_path: Path, form: str) -> None:
    for module in ("auto_round", "sentencepiece", "llama_cpp"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    byte_folder(tmp_path / "source", hidden_size=256, intermediate_size=512)
    spec = variant(tmp_path, "gguf", format=form)
    assert engine_of(spec).label(spec) == f"AutoRound {form.upper()}"
    before, _ = files_to_load(spec, fetch=False)
    expected = estimate_of(spec, before, False, 64)
    ready, answer, planned = await answered(spec)
    assert ready.model_info.engine == "gguf"
    assert answer.output_tokens == MOST
    assert ready.ledger.weights == pytest.approx(planned, rel=0.02)
    assert expected.weights == planned


def log_probabilities(file: Path, ids: list[int], width: int) -> torch.Tensor:
    """Return what llama.cpp predicts after each of `ids`, shape (tokens, width)."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    model = llama_cpp.Llama(str(file), n_ctx=128, logits_all=True, verbose=False)
    model.eval(ids)
    scores = torch.tensor(model.scores[: len(ids), :width]).float()
    model.close()
    return torch.log_softmax(scores, -1)


@pytest.mark.parametrize("form", get_args(GgufFormat))
def test_each_gguf_format_predicts_about_as_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """In one process, without a loaded variant: the formats differ only in their tensor types."""
    for module in ("auto_round", "sentencepiece", "llama_cpp"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    monkeypatch.setattr(os, "nice", lambda more: 0)
    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
    source = byte_folder(tmp_path / "source", **sizes)
    ids = list(range(20, 84))
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(source).eval()(torch.tensor([ids])).logits[0]
    expected = torch.log_softmax(logits.float(), -1)
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in TEXTS))
    for name in ("scratch", "out"):
        (tmp_path / name).mkdir()
    workspace = Workspace(str(tmp_path / "scratch"), str(tmp_path / "out"))
    load = LoadModel("transformers", str(source), {}, device="cpu", dtype="bfloat16")
    monkeypatch.chdir(tmp_path)  # and back, because the job changes it
    quantize_gguf.run(
        QuantizeGgufJob(load, GgufSettings(form, 0), str(text), workspace), lambda *step: None
    )
    (file,) = (tmp_path / "out").glob("*.gguf")
    planned = built_files(read_folder(source), form)
    assert read_gguf(file).bytes == planned.bytes
    found = log_probabilities(file, ids, expected.shape[1])
    divergence = (expected.exp() * (expected - found)).sum(-1).mean().item()
    assert divergence < MOST_DIVERGENCE[int(form[1])]
