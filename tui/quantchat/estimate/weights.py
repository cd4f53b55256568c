"""How large a model's weights are once loaded, from its tensors' names, dtypes and shapes alone.

What each engine makes of a matrix of n elements, in bytes:

    NF4, FP4   n ÷ 2, a float32 scale for 64 elements, a codebook of 16 float32; with double
               quantization (QLoRA, Dettmers et al. 2023, section 3) each scale is one byte, 256 of
               them share a float32, and a codebook of 256 float32 comes on top
    int8       n, and a float32 scale for each row (LLM.int8(), Dettmers et al. 2022)
    GPTQ       n × bits ÷ 8; for each group and column a scale of 2 bytes and a zero of `bits`;
               4 bytes of group index for each input (GPTQModel's `gptq` format)

Quantized is each linear layer but the output head; embeddings stay. Some kernels keep more than the
format holds: their layouts are read off GPTQModel 7.6 and bitsandbytes 0.50.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantchat.estimate.model_files import (
    DTYPE_BYTES,
    EMBEDDING,
    FLOATS,
    HEAD,
    ModelFiles,
    TensorInfo,
)
from quantchat.profile.model import AnyVariant, AutoGptq, BitsAndBytes, Gptq, Transformers

_ROUTER = re.compile(r"\.(?:gate|router)\.weight$")
_EXPERTS = re.compile(r"\.experts\.")
"""Those that are chosen among: `shared_experts`, which every token passes, are linear layers."""
_BLOCK = re.compile(r"\.\d+\.")
_BESIDE = re.compile(r"visual|vision|audio|multi_modal|mm_projector|connector")
_OWN_LINEARS = ("falcon",)
"""Kinds of models whose layers are classes of their own, which bitsandbytes does not take."""

_OVERHEAD = {
    "scales": ("absmax", "nested_absmax", "SCB", "scales", "weight_scale", "weight_scale_inv"),
    "zeros": ("qzeros", "weight_zero_point"),
    "codebook": ("quant_map", "nested_quant_map"),
    "indices": ("g_idx",),
}
"""What a quantization keeps beside the weights: kind, and the tensors' last names."""


@dataclass(frozen=True)
class Weights:
    """Bytes of the weights once loaded."""

    packed: int
    """The quantized weights themselves; 0 where nothing is quantized."""
    plain: int
    """What is not quantized: embeddings, output head, norms, biases."""
    overhead: dict[str, int]
    """What the quantization keeps beside: scales, zeros, codebook, indices."""
    largest: int
    """Elements of the largest matrix that is quantized, or of the largest tensor where none is."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.packed + self.plain + sum(self.overhead.values())


def loaded_dtype(spec: AnyVariant, files: ModelFiles, cuda: bool) -> str:
    """The dtype of what is not quantized, as the engine chooses it for `dtype = "auto"`."""
    if spec.dtype != "auto":
        return spec.dtype
    if isinstance(spec, Transformers):
        return files.dtype or files.commonest_float
    if isinstance(spec, AutoGptq):  # its kernels know no bfloat16
        return "float16" if cuda else "float32"
    if isinstance(spec, Gptq) and not cuda:
        return "bfloat16"
    return "float16" if files.dtype == "float16" else "bfloat16"


def weights(spec: AnyVariant, files: ModelFiles, *, cuda: bool, repacked: bool) -> Weights:
    """The weights of `spec`, made from `files`, on a GPU or (`cuda` False) on the CPU.

    `repacked`: bitsandbytes repacks 4-bit weights at their first use on this processor, which
    has AVX512-BF16.
    """
    tensors = files.tensors
    size = DTYPE_BYTES[loaded_dtype(spec, files, cuda)]
    bnb_on_cpu = repacked and not cuda
    if isinstance(spec, Gptq):
        return _gptq(spec, files, tensors, size, cuda)
    if unpacked(spec, files, cuda):
        return _unpacked(tensors, size)
    if files.quantization is not None:
        return _as_stored(tensors, bnb_on_cpu and isinstance(spec, BitsAndBytes))
    if isinstance(spec, BitsAndBytes):
        return _bitsandbytes(spec, files, tensors, size, bnb_on_cpu)
    plain = sum(_plain(tensor, size) for tensor in tensors.values())
    return Weights(0, plain, {}, max((t.elements for t in tensors.values()), default=0))


def not_quantized(spec: AnyVariant, files: ModelFiles, repacked: bool) -> str:
    """What bitsandbytes leaves of a model as it is, and how much; empty where next to nothing.

    transformers 5 holds the experts of a mixture in one parameter of three dimensions, which is no
    linear layer.
    """
    if not isinstance(spec, BitsAndBytes) or files.quantization is not None:
        return ""
    left: Counter[str] = Counter()
    quantized = ends = 0
    for name, tensor in files.tensors.items():
        part = _left_plain(name, tensor, files, repacked)
        if not part:
            quantized += tensor.elements
        elif part == _END:
            ends += tensor.elements
        else:
            left[part] += tensor.elements
    if left.total() < _WORTH_SAYING * (left.total() + quantized):
        return ""
    dtype = loaded_dtype(spec, files, cuda=True)
    share = 1 - quantized / (left.total() + ends + quantized)
    ours = ", embeddings included," if ends else ""
    parts = [part for part, count in left.most_common() if count > 0.1 * left.total()]
    return f"{' and '.join(parts)} not quantized: {share:.0%} of the weights{ours} stay {dtype}"


_WORTH_SAYING = 0.05
"""Share of the layers that is left as it is, from which on it is said."""

_END = "embeddings, norms and biases"


def _left_plain(name: str, tensor: TensorInfo, files: ModelFiles, repacked: bool) -> str:
    """Which part of a model it is that bitsandbytes leaves as it is; empty where it quantizes."""
    if _EXPERTS.search(name) and len(tensor.shape) > 1:
        return "experts"
    if not _is_linear(name, tensor, files.vocabulary) or _ROUTER.search(name):
        return _END
    if len(files.configs) > 1 and _BESIDE.search(name):
        return "image and audio parts"
    if str(files.config.get("model_type")) in _OWN_LINEARS:
        return "its own kind of layers"
    if repacked and tensor.shape[0] % 32:
        return "layers whose width is no multiple of 32"
    return ""


def unpacked(spec: AnyVariant, files: ModelFiles, cuda: bool) -> str:
    """Whose packed weights transformers unpacks on this machine when it loads them; empty: none's.

    As its quantizers decide: FP8 wants a GPU, MXFP4 Triton and the package kernels.
    """
    method = str((files.quantization or {}).get("quant_method", "")).lower()
    if not isinstance(spec, Transformers):
        return ""
    if method in ("fp8", "mxfp8"):
        return "" if cuda else method
    if method == "mxfp4":
        there = all(importlib.util.find_spec(name) for name in ("triton", "kernels"))
        return "" if there and not (spec.python or spec.env) else method
    return ""


def _plain(tensor: TensorInfo, size: int) -> int:
    return tensor.elements * size if tensor.dtype in FLOATS else tensor.bytes


def _is_linear(name: str, tensor: TensorInfo, vocabulary: int | None) -> bool:
    return (
        name.endswith(".weight")
        and len(tensor.shape) == 2
        and not EMBEDDING.search(name)
        and not HEAD.search(name)
        and (tensor.shape[0] != vocabulary or bool(_BLOCK.search(name)))
    )


# ------------------------------------------------------------ bitsandbytes


def _bitsandbytes(
    spec: BitsAndBytes,
    files: ModelFiles,
    tensors: Mapping[str, TensorInfo],
    size: int,
    repacked: bool,
) -> Weights:
    packed, plain, largest = 0, 0, 0
    overhead: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if _left_plain(name, tensor, files, repacked and spec.quant_type != "int8"):
            plain += _plain(tensor, size)
            continue
        largest = max(largest, tensor.elements)
        if spec.quant_type == "int8":
            packed += tensor.elements
            overhead["scales"] += 4 * tensor.shape[0]
        else:
            packed += _up(tensor.elements, 2)
            overhead.update(_four_bit_overhead(tensor.elements, spec.double_quant, repacked))
    return Weights(packed, plain, dict(overhead), largest)


def _four_bit_overhead(elements: int, double_quant: bool, repacked: bool) -> dict[str, int]:
    scales = _up(elements, 64)
    if repacked:  # bitsandbytes.functional._convert_weight_packed_for_cpu: bfloat16, never nested
        return {"scales": 2 * scales, "codebook": 4 * 16}
    if double_quant:
        # One byte for each, one float32 for 256 of them, and their mean.
        return {"scales": scales + 4 * _up(scales, 256) + 4, "codebook": 4 * (16 + 256)}
    return {"scales": 4 * scales, "codebook": 4 * 16}


# ------------------------------------------------------------ finished checkpoints


def _as_stored(tensors: Mapping[str, TensorInfo], repacked: bool) -> Weights:
    """A checkpoint that its engine takes as it lies."""
    packed, plain, largest = 0, 0, 0
    overhead: Counter[str] = Counter()
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        kind = next((kind for kind, names in _OVERHEAD.items() if last in names), None)
        if last.startswith("bitsandbytes__"):  # a description, in JSON, that is not kept
            continue
        if kind is not None:
            overhead[kind] += tensor.bytes
        elif tensor.dtype in FLOATS:
            plain += tensor.bytes
        else:
            packed += tensor.bytes
            elements = 2 * tensor.elements if tensor.dtype == "U8" else tensor.elements
            largest = max(largest, elements)
    if repacked and "codebook" in overhead:
        overhead["scales"] = 2 * _up(2 * packed, 64)
    return Weights(packed, plain, dict(overhead), largest)


def _unpacked(tensors: Mapping[str, TensorInfo], size: int) -> Weights:
    """An FP8 or MXFP4 checkpoint in full precision: two weights lie in each byte of the latter."""
    plain, largest = 0, 0
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        if last.endswith("_scales") or last in _OVERHEAD["scales"]:
            continue
        elements = tensor.elements * (2 if last.endswith("_blocks") else 1)
        plain, largest = plain + elements * size, max(largest, elements)
    return Weights(0, plain, {}, largest)


# ------------------------------------------------------------ GPTQ


@dataclass(frozen=True)
class _GptqLayer:
    inputs: int
    outputs: int
    groups: int
    bits: int

    def packed(self) -> int:
        return self.inputs * self.outputs * self.bits // 8

    def overhead(self, layout: str) -> dict[str, int]:
        scales = 2 * self.groups * self.outputs
        zeros = self.groups * self.outputs * self.bits // 8
        indices = 4 * self.inputs
        if layout == "aten":  # both unpacked to bfloat16, and once more side by side
            return {"scales": 2 * scales, "zeros": 2 * scales, "indices": 2 * indices}
        if layout == "torch":  # caches the unpacked zeros as bytes, the indices as int64
            unpacked = self.groups * self.outputs
            return {"scales": scales, "zeros": zeros + unpacked, "indices": 3 * indices}
        return {"scales": scales, "zeros": zeros, "indices": indices}


def _gptq(
    spec: Gptq, files: ModelFiles, tensors: Mapping[str, TensorInfo], size: int, cuda: bool
) -> Weights:
    made = files.quantization
    if made is not None:
        layers, rest = _gptq_made(tensors, made)
    else:
        layers, rest = _gptq_to_make(spec, files, tensors)
    packed = 0
    overhead: Counter[str] = Counter()
    for layer in layers:
        packed += layer.packed()
        overhead.update(layer.overhead(_layout(spec.kernel, layer, cuda)))
    plain = sum(_plain(tensor, size) for tensor in rest)
    largest = max((layer.inputs * layer.outputs for layer in layers), default=0)
    return Weights(packed, plain, dict(overhead), largest)


def _gptq_made(
    tensors: Mapping[str, TensorInfo], made: Mapping[str, Any]
) -> tuple[list[_GptqLayer], list[TensorInfo]]:
    layers, rest = [], []
    named = made.get("bits")
    for name, tensor in tensors.items():
        stem, _, last = name.rpartition(".")
        if last == "qweight" and len(tensor.shape) == 2:
            scales, indices = tensors.get(f"{stem}.scales"), tensors.get(f"{stem}.g_idx")
            rows, outputs = tensor.shape
            # Of mixed precision each layer has its own width, which its group index tells.
            bits = named if isinstance(named, int) and named > 0 else 4
            inputs = indices.elements if indices else 32 * rows // bits
            groups = scales.shape[0] if scales and scales.shape else 1
            layers.append(_GptqLayer(inputs, outputs, groups, 32 * rows // max(1, inputs)))
        elif last not in ("qzeros", "scales", "g_idx"):
            rest.append(tensor)
    return layers, rest


def _gptq_to_make(
    spec: Gptq, files: ModelFiles, tensors: Mapping[str, TensorInfo]
) -> tuple[list[_GptqLayer], list[TensorInfo]]:
    layers, rest = [], []
    bits = spec.quantize.bits if spec.quantize else 4
    group_size = spec.quantize.group_size if spec.quantize else 128
    for name, tensor in tensors.items():
        linear = _is_linear(name, tensor, files.vocabulary)
        if linear and _BLOCK.search(name) and not _BESIDE.search(name):
            outputs, inputs = tensor.shape
            groups = _up(inputs, group_size) if group_size > 0 else 1
            layers.append(_GptqLayer(inputs, outputs, groups, bits))
        else:
            rest.append(tensor)
    return layers, rest


def _layout(kernel: str, layer: _GptqLayer, cuda: bool) -> str:
    """What the kernel that will be chosen keeps: `stored` is as the file has it, or less."""
    name = kernel.removeprefix("gptq_")
    if name == "torch":
        return "torch"
    if cuda or name not in ("auto", "torch_aten"):
        return "stored"
    size = -(-layer.inputs // layer.groups)
    return "aten" if layer.bits == 4 and size in (16, 32, 64, 128) else "torch"


def _up(count: int, by: int) -> int:
    return -(-count // by)
