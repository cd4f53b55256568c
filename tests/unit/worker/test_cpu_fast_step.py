"""Fast decode steps on a CPU: a changed library is noticed, and the slow step is used."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fakes.tiny_llama import loaded, tiny_llama
from quantchat.worker.decode.check import Check
from quantchat.worker.decode.cpu import fast_step, fused_weights, kernels, unfused_weights
from quantchat.worker.decode.modes import choose

GROUP = 32
BLOCK = 32


class TorchAtenLinear(torch.nn.Module):  # type: ignore[misc]
    """Stands in for GPTQModel's layer of that name, with the attributes of release 7.6."""

    def __init__(self, dense: Any) -> None:
        super().__init__()
        self.out_features, inputs = dense.weight.shape
        self.group_size, self.linear_mode, self.adapter, self.bias = GROUP, "inference", None, None
        self.ret_idx = torch.arange(inputs)
        codes = torch.randint(0, 16, dense.weight.shape, dtype=torch.int32)
        self.qweight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        scales = torch.full((inputs // GROUP, self.out_features), 0.02)
        zeros = torch.zeros_like(scales)
        self.scales_and_zeros = torch.stack([scales, zeros], dim=-1).to(torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows, self.qweight, self.group_size, self.scales_and_zeros
        )
        return out.to(x.dtype).view(*x.shape[:-1], -1)


def gemv_4bit(rows: Any, weight: Any, shape: Any, absmax: Any, code: Any, blocksize: int) -> Any:
    """Stands in for bitsandbytes' kernel, over weights that are whole numbers of `absmax`."""
    assert list(weight.shape) == shape
    assert weight.is_contiguous() and absmax.is_contiguous()
    return rows @ (weight * absmax.t().repeat_interleave(blocksize, dim=1)).t()


class Linear4bit(torch.nn.Module):  # type: ignore[misc]
    """Stands in for bitsandbytes' layer once release 0.50 has repacked it for AVX512-BF16."""

    def __init__(self, dense: Any) -> None:
        super().__init__()
        out, inputs = dense.weight.shape
        self.out_features, self.bias = out, None
        self.weight = torch.nn.Parameter(torch.randint(-8, 8, (out, inputs)).float(), False)
        self.weight.quant_state = SimpleNamespace(
            packing_format_for_cpu=True,
            nested=False,
            blocksize=BLOCK,
            shape=(out, inputs),
            absmax=torch.rand((inputs // BLOCK, out)) / 50,
            code=None,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.weight.quant_state
        rows = x.reshape(-1, x.shape[-1])
        out = gemv_4bit(rows, self.weight.data, list(state.shape), state.absmax, None, BLOCK)
        return out.view(*x.shape[:-1], -1)


class Nf4(torch.nn.Module):  # type: ignore[misc]
    """Makes bitsandbytes' own layer, as it is on a processor without AVX512-BF16."""

    def __new__(cls, dense: Any) -> Any:
        from bitsandbytes import nn

        out, inputs = dense.weight.shape
        layer = nn.Linear4bit(inputs, out, bias=False, quant_type="nf4")
        layer.weight = nn.Params4bit(dense.weight.data, requires_grad=False, quant_type="nf4")
        layer.support_avx512bf16_for_cpu = False
        return layer.to("cpu").eval()


def model_of(kind: Callable[[Any], Any] | None) -> Any:
    """A small Llama whose blocks have layers of `kind`; with None they stay dense."""
    model = tiny_llama(intermediate_size=128, num_key_value_heads=4)
    for block in model.model.layers if kind else ():
        for part in (block.self_attn, block.mlp):
            for name, layer in list(part.named_children()):
                if isinstance(layer, torch.nn.Linear) and kind:
                    setattr(part, name, kind(layer).eval())
    return model


KINDS = {
    "_Dense": None,
    "_Int4": TorchAtenLinear,
    "_Packed4Bit": Linear4bit,
    "_Unpacked4Bit": Nf4,
}


@pytest.fixture(params=list(KINDS))
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the product that computes the layers."""
    name: str = request.param
    op = SimpleNamespace(default=gemv_4bit)
    if name == "_Packed4Bit":
        monkeypatch.setattr(torch.ops.bitsandbytes, "gemv_4bit", op, raising=False)
    return name


def prompt_logits(model: Any) -> Any:
    with torch.inference_mode():
        return model(input_ids=torch.arange(40)[None]).logits


def test_each_layout_is_read_as_its_library_has_it(product: str) -> None:
    model = model_of(KINDS[product])
    before = prompt_logits(model)
    found = fast_step(model, Check(loaded(model)).fault)
    assert found.step is not None
    assert (found.step.name, found.rejected) == ("eager, fused Llama steps", "")
    with unfused_weights(model):
        assert torch.equal(prompt_logits(model), before)


@pytest.mark.parametrize("change", ["result", "call", "attribute"])
def test_a_library_that_changed_its_layout_is_left_to_the_modules(
    product: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(KINDS[product])
    before = prompt_logits(model)
    kind = getattr(kernels, product)
    compute = kind.__call__

    def changed(self: Any, rows: Any) -> Any:
        if change == "call":
            raise TypeError("gemv() takes 7 positional arguments but 6 were given")
        return compute(self, rows).roll(1, -1)

    def renamed(self: Any, layers: Any) -> None:
        raise AttributeError(f"{type(layers).__name__!r} object has no attribute 'ret_idx'")

    if change == "attribute":
        monkeypatch.setattr(kind, "__init__", renamed)
    else:
        monkeypatch.setattr(kind, "__call__", changed)
    chosen = choose(loaded(model), "auto", lambda stage: None)
    assert chosen.name == "eager"
    reason = {"result": "its logits are off by", "call": "gemv()", "attribute": "'ret_idx'"}[change]
    fused, direct = chosen.note.split("; ")
    assert fused.startswith("not fused Llama steps: ") and reason in fused
    assert direct.startswith("not direct kernel calls: ") and reason in direct
    assert torch.equal(prompt_logits(model), before)


def test_only_the_fused_layout_that_changed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of several layers no longer lie in one block: a layer alone is computed as before."""

    def interleaved(weights: list[Any]) -> Any:
        return weights[0] if len(weights) == 1 else torch.stack(weights, 1).flatten(0, 1)

    monkeypatch.setattr(kernels, "_joined", interleaved)
    monkeypatch.setattr(kernels, "_share", lambda *given, **named: None)
    chosen = choose(loaded(model_of(None)), "auto", lambda stage: None)
    assert chosen.name == "eager, direct kernel calls"
    assert chosen.note.startswith("not fused Llama steps: its logits are off by")


def test_weights_are_unfused_when_the_fused_step_is_rejected() -> None:
    model = model_of(TorchAtenLinear)
    before = prompt_logits(model)
    faults = iter(["its logits are off", "its logits are off"])
    assert fast_step(model, lambda step: next(faults)).step is None
    columns = [one for layer in model.modules() for one in fused_weights._columns(layer)]
    assert columns and all(tensor.is_contiguous() for *_, tensor in columns)
    assert torch.equal(prompt_logits(model), before)
