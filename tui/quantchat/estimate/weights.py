"""How large a model's weights are once loaded, from its tensors' names, dtypes and shapes alone.

What each format makes of its matrices stands with its engine (`quantchat.engines`); here is what
they share. As a rule each linear layer but the output head is quantized, and embeddings stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quantchat.estimate.model_files import EMBEDDING, FLOATS, HEAD, ModelFiles, TensorInfo

ROUTER = re.compile(r"\.(?:gate|router)\.weight$")
"""The layer that selects experts: engines leave it in full precision."""
EXPERTS = re.compile(r"\.experts\.")
"""Routed experts. `shared_experts`, which every token passes, are linear layers."""
BLOCK = re.compile(r"\.\d+\.")
"""Part of a tensor's name inside a stack of layers."""
BESIDE = re.compile(r"visual|vision|audio|multi_modal|mm_projector|connector")
"""Tensors of a multimodal model outside its language model."""

OVERHEAD = {
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


def in_full(tensors: Mapping[str, TensorInfo], size: int) -> Weights:
    """A model of which nothing is quantized; `size` is bytes per element."""
    plain = sum(dense_bytes(tensor, size) for tensor in tensors.values())
    return Weights(0, plain, {}, max((t.elements for t in tensors.values()), default=0))


def quantized_linears(
    files: ModelFiles,
    size: int,
    quantize: Callable[[TensorInfo], tuple[int, Mapping[str, int]]],
    *,
    keep: Callable[[str, TensorInfo], bool] | None = None,
) -> Weights:
    """A model whose linear layers are quantized while it is loaded.

    `quantize` returns the packed bytes of a matrix and its overhead by kind (scales, zeros,
    codebook, indices). `keep` tells which tensors stay as they are, `size` bytes per element; by
    default all but the linear layers inside the stack.
    """
    packed, plain, largest = 0, 0, 0
    overhead: Counter[str] = Counter()
    for name, tensor in files.tensors.items():
        if keep(name, tensor) if keep else not is_linear(name, tensor, files.vocabulary):
            plain += dense_bytes(tensor, size)
            continue
        taken, beside = quantize(tensor)
        packed, largest = packed + taken, max(largest, tensor.elements)
        overhead.update(beside)
    return Weights(packed, plain, dict(overhead), largest)


def as_stored(tensors: Mapping[str, TensorInfo]) -> Weights:
    """A finished checkpoint that its engine holds as it lies in the files."""
    packed, plain, largest = 0, 0, 0
    overhead: Counter[str] = Counter()
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        kind = next((kind for kind, names in OVERHEAD.items() if last in names), None)
        if last.startswith("bitsandbytes__"):  # a description, in JSON, that is not loaded
            continue
        if kind is not None:
            overhead[kind] += tensor.bytes
        elif tensor.dtype in FLOATS:
            plain += tensor.bytes
        else:
            packed += tensor.bytes
            elements = 2 * tensor.elements if tensor.dtype == "U8" else tensor.elements
            largest = max(largest, elements)
    return Weights(packed, plain, dict(overhead), largest)


def dequantized(tensors: Mapping[str, TensorInfo], size: int) -> Weights:
    """An FP8 or MXFP4 checkpoint in full precision: two weights lie in each byte of the latter."""
    plain, largest = 0, 0
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        if last.endswith("_scales") or last in OVERHEAD["scales"]:
            continue
        elements = tensor.elements * (2 if last.endswith("_blocks") else 1)
        plain, largest = plain + elements * size, max(largest, elements)
    return Weights(0, plain, {}, largest)


def dense_bytes(tensor: TensorInfo, size: int) -> int:
    """Bytes of a tensor that is not quantized: floats are cast to `size` bytes per element."""
    return tensor.elements * size if tensor.dtype in FLOATS else tensor.bytes


def is_linear(name: str, tensor: TensorInfo, vocabulary: int | None) -> bool:
    """Whether a tensor is the matrix of a linear layer, neither embedding nor output head."""
    return (
        name.endswith(".weight")
        and len(tensor.shape) == 2
        and not EMBEDDING.search(name)
        and not HEAD.search(name)
        and (tensor.shape[0] != vocabulary or bool(BLOCK.search(name)))
    )


def divide_up(count: int, by: int) -> int:
    """`count` / `by`, rounded up."""
    return -(-count // by)
