"""The description of a loaded model's weights; a library's own layers stay unchanged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fakes.tiny_llama import tiny_llama
from quantchat.worker.decode.cpu import kernels
from quantchat.worker.memory import TensorBytes
from quantchat.worker.model.contents import Contents, label, tower_linears, unpacked


class Packed(torch.nn.Module):  # type: ignore[misc]
    """As GPTQModel's layers are: packed weights in a buffer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.register_buffer("qweight", torch.zeros(inputs // 8, outputs, dtype=torch.int32))


class Wrapping(torch.Tensor):  # type: ignore[misc]
    """As torchao's weights are: a tensor that only wraps others, with a product of its own."""

    qdata: torch.Tensor
    scale: torch.Tensor

    @staticmethod
    def __new__(cls, qdata: torch.Tensor, scale: torch.Tensor) -> Wrapping:
        made = torch.Tensor._make_wrapper_subclass(cls, qdata.shape, dtype=torch.float32)
        made.qdata, made.scale = qdata, scale
        return made  # type: ignore[no-any-return]

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["qdata", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].qdata, args[0].scale)
        raise NotImplementedError(func)


def wrapped(outputs: int, inputs: int) -> torch.nn.Parameter:
    data = torch.zeros(outputs, inputs, dtype=torch.int8)
    return torch.nn.Parameter(Wrapping(data, torch.ones(outputs)), requires_grad=False)


def with_packed(model: Any, *names: str) -> Any:
    for layer in model.model.layers:
        for name in names:
            old = getattr(layer.mlp, name)
            setattr(layer.mlp, name, Packed(old.in_features, old.out_features))
    return model


def test_a_plain_model_is_counted_once_and_nothing_is_said() -> None:
    model = tiny_llama()
    found = Contents.of(model)
    matrices = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert (found.plain.total(), found.quantized) == (matrices, 0)
    assert found.plain["embeddings"] == 2 * 97 * 64
    assert not found.not_quantized() and label("not quantized", found) == "not quantized"


def test_what_is_quantized_in_part_is_said_with_its_share() -> None:
    found = Contents.of(with_packed(tiny_llama(), "gate_proj", "up_proj"))
    assert found.quantized == 3 * 2 * 64 * 96
    whole = found.quantized + found.plain.total()
    share = f"{found.plain.total() / whole:.0%}"
    told = f"layers not quantized: {share} of the weights, embeddings included, are float32"
    assert found.not_quantized() == told
    assert label("K 4-bit", found) == f"K 4-bit, on {found.quantized / whole:.0%} of the weights"


def test_experts_are_called_so() -> None:
    model = with_packed(tiny_llama(), "gate_proj", "up_proj", "down_proj")
    assert "layers not" in Contents.of(model).not_quantized()  # attention
    for layer in model.model.layers:
        layer.mlp.experts = torch.nn.Module()
        layer.mlp.experts.gate_up_proj = torch.nn.Parameter(torch.zeros(8, 128, 128))
    assert Contents.of(model).not_quantized().startswith("experts not quantized: 89%")


def test_a_wrapped_weight_counts_as_quantized_and_its_parts_as_bytes() -> None:
    model = tiny_llama()
    for layer in model.model.layers:
        for part in (layer.mlp, layer.self_attn):
            for linear in (m for m in part.modules() if isinstance(m, torch.nn.Linear)):
                linear.weight = wrapped(*linear.weight.shape)
    found = Contents.of(model)
    assert found.quantized == TensorBytes.of(model).by_dtype["int8"] > 0
    assert TensorBytes.of(model).overhead["scales"] > 0
    assert found.kernel == "Linear of Wrapping" and not found.not_quantized()


def test_what_sees_is_told_apart_from_what_reads() -> None:
    from transformers import AutoModelForImageTextToText, LlavaConfig

    small = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": 97, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = LlavaConfig(
        text_config={**small, "model_type": "llama"},
        vision_config={**small, "model_type": "clip_vision_model"},
    )
    model = AutoModelForImageTextToText.from_config(config)
    names = list(tower_linears(model))
    assert any("vision_tower" in name for name in names)
    assert any("multi_modal_projector" in name for name in names)
    assert not any("language_model" in name or "lm_head" in name for name in names)
    assert Contents.of(model).plain["image and audio parts"] > 0
    assert not list(tower_linears(tiny_llama()))


def test_what_was_unpacked_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(2_000_000))
    model = tiny_llama()
    kernel, note = unpacked(model, "mxfp4", str(tmp_path))
    held = TensorBytes.of(model).by_dtype.total()
    assert kernel == "mxfp4, dequantized to float32"
    assert note == f"dequantized to float32: {held / 1e6:.0f} MB, not 2 MB"
    (tmp_path / "m.gguf").write_bytes(bytes(1_000_000))
    assert unpacked(model, "gguf", str(tmp_path), "m.gguf")[1].endswith("not 1 MB")


# ------------------------------------------------------------ direct kernel calls


def test_a_layer_that_a_library_computes_is_not_called_directly() -> None:
    layers = [torch.nn.Linear(8, 8, bias=False).eval() for _ in range(3)]
    layers[0].weight = wrapped(8, 8)
    own: Any = lambda x: x  # noqa: E731
    layers[1].forward = own
    model = torch.nn.ModuleList(layers)
    assert [kernels.product([layer]) is None for layer in layers] == [True, True, False]
    assert kernels.product(layers[1:]) is None
    assert kernels.call_directly(model) == 1
    assert kernels.call_directly(model) == 1  # ours may be put on anew
    kernels.call_as_before(model)
    assert layers[1].forward is own, "what is a library's stays"
    assert "forward" not in vars(layers[2])


@pytest.mark.parametrize("module", [SimpleNamespace(), SimpleNamespace(weight=None)])
def test_a_module_without_a_weight_is_nobodys(module: Any) -> None:
    assert not kernels.computed_elsewhere(module)
