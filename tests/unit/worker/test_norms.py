"""Norms by torch's kernel: one operation, equal but for rounding, and undone afterwards."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Gemma2Config, Gemma2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from fakes.tiny_llama import tiny_llama
from quantchat.worker.decode.norms import fusable_norms, fused_norms
from quantchat.worker.decode.steps.static import StaticStep

TOKENS = torch.tensor([[5, 60, 7, 33, 2, 90]])
LAYERS = 3


class Operations(TorchDispatchMode):  # type: ignore[misc]
    """Counts what is computed, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, given: Any = (), named: Any = None
    ) -> Any:
        self.by_name[function.overloadpacket.__name__] += 1
        return function(*given, **(named or {}))


def roughened(model: Any) -> Any:
    """`model` with norms whose weights are not all one."""
    for norm in fusable_norms(model):
        torch.nn.init.normal_(norm.weight, 1.0, 0.3)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_is_the_same_but_for_rounding(dtype: torch.dtype) -> None:
    model = roughened(tiny_llama()).to(dtype)
    norms = fusable_norms(model)
    assert len(norms) == 2 * LAYERS + 1
    own, fused = StaticStep(model, "own"), StaticStep(model, "fused")
    with fused_norms(norms):
        found = torch.stack([fused.run(TOKENS), fused.run(TOKENS[:, :1])]).float()
    assert not any("forward" in vars(norm) for norm in norms)
    expected = torch.stack([own.run(TOKENS), own.run(TOKENS[:, :1])]).float()
    assert (found - expected).norm() <= 8 * torch.finfo(dtype).eps * expected.norm()


def test_each_norm_is_one_operation() -> None:
    model = tiny_llama().to(torch.bfloat16)
    step = StaticStep(model, "static")
    step.run(TOKENS)
    norms = fusable_norms(model)
    with Operations() as own:
        step.run(TOKENS[:, :1])
    with Operations() as fused, fused_norms(norms):
        step.run(TOKENS[:, :1])
    assert own.by_name["rsqrt"] == len(norms)
    assert fused.by_name["rms_norm"] == len(norms)
    assert own.by_name.total() - fused.by_name.total() == 7 * len(norms)


def test_norms_of_another_formula_are_left_alone() -> None:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    gemma = Gemma2ForCausalLM(Gemma2Config(**sizes))
    for norm in (m for m in gemma.modules() if type(m).__name__ == "Gemma2RMSNorm"):
        torch.nn.init.normal_(norm.weight)
    assert fusable_norms(gemma) == []
    qwen = Qwen3ForCausalLM(Qwen3Config(**sizes))
    assert len(fusable_norms(qwen)) == 5  # those of queries and keys too


def test_a_norm_with_a_hook_or_in_another_dtype_is_left_alone() -> None:
    model = tiny_llama()
    hooked, *others = fusable_norms(model)
    hooked.forward = hooked.forward
    assert fusable_norms(model) == others
