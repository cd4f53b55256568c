"""A decode step never waits for a value of the device, and has no tensors on another device.

The tests run on torch's device `meta`, where tensors have no values: reading a value is an error,
and so is mixing tensors of `meta` and of the CPU. On a GPU, reading a value would make a capture
fail and delay every token without a capture, and mixing devices would fail only there.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fakes.tiny_llama import VOCABULARY, tiny_llama
from quantchat.wire.messages import Sampling
from quantchat.worker.decode.sampling import Sampler
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.decode.steps.static import StaticStep

META = torch.device("meta")
ALL_PROCESSORS = Sampling(temperature=0.7, top_p=0.9, top_k=5, repetition_penalty=1.1, seed=3)


@pytest.fixture
def generators(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none for `meta`, which wants none."""
    none = SimpleNamespace(manual_seed=lambda seed: None)
    monkeypatch.setattr(torch, "Generator", lambda device: none)


def static(model: Any) -> EagerStep:
    return StaticStep(model, "static")


@pytest.mark.usefixtures("generators")
@pytest.mark.parametrize("make", [EagerStep, static])
@pytest.mark.parametrize("sampling", [Sampling(), ALL_PROCESSORS], ids=["greedy", "sampled"])
def test_a_prompt_in_chunks_and_tokens_over_the_end_of_the_buffers(
    make: Any, sampling: Sampling
) -> None:
    step = make(tiny_llama().to(META))
    prompt = list(range(VOCABULARY)) * 3
    sampler = Sampler(sampling, META, prompt[:250])
    for start in range(0, 250, 64):
        logits = step.run(torch.tensor([prompt[start : min(250, start + 64)]], device=META))
    for _ in range(12):
        token = sampler.choose(logits)
        assert (token.shape, token.device) == ((1, 1), META)
        logits = step.run(token)
    assert logits.shape == (1, VOCABULARY)
    assert step.cache.get_seq_length() == 262
    assert step.cut(5)
    step.run(sampler.choose(logits))
    step.forget()


def test_what_waits_or_lies_elsewhere_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    step = StaticStep(tiny_llama().to(META), "static")
    one = torch.zeros((1, 1), dtype=torch.long, device=META)
    step.run(one)
    forward = step._forward
    monkeypatch.setattr(step, "_forward", lambda places: forward(torch.arange(len(places))))
    with pytest.raises(RuntimeError, match="cpu"):
        step.run(one)
    monkeypatch.setattr(step, "_forward", lambda places: forward(places[: int(step._position)]))
    with pytest.raises(RuntimeError, match="meta"):
        step.run(one)
