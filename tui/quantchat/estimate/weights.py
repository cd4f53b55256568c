"""Compute the size of loaded weights from the names, dtypes and shapes of a model's tensors.

Each engine's declaration (a module of `quantchat.engines`) computes the size of its own format;
this module has the functions that these declarations share. Usually all linear layers except the
output head are quantized; embeddings are not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quantchat.estimate.model_files import EMBEDDING, FLOATS, HEAD, ModelFiles, TensorInfo

ROUTER = re.compile(r"\.(?:gate|router)\.weight$")
"""The weight of the layer that selects experts; engines do not quantize it."""
EXPERTS = re.compile(r"\.experts\.")
"""Part of the names of routed experts' tensors. `shared_experts`, which process every token, are
plain linear layers and do not match."""
BLOCK = re.compile(r"\.\d+\.")
"""The number of a layer, in the name of a tensor that lies in the stack of layers."""
OTHER_MODALITIES = re.compile(r"visual|vision|audio|multi_modal|mm_projector|connector")
"""Part of the names of a multimodal model's tensors that do not belong to its language model."""

OVERHEAD = {
    "scales": ("absmax", "nested_absmax", "SCB", "scales", "weight_scale", "weight_scale_inv"),
    "zeros": ("qzeros", "weight_zero_point"),
    "codebook": ("quant_map", "nested_quant_map"),
    "indices": ("g_idx",),
}
"""Key: a kind of tensors that a quantization adds to the weights; value: the last parts of their
names."""


@dataclass(frozen=True)
class Weights:
    """Sizes of the loaded weights, in bytes."""

    packed: int
    """The quantized weights; 0 if nothing is quantized."""
    plain: int
    """The unquantized weights: embeddings, output head, norms, biases."""
    overhead: dict[str, int]
    """Additions of the quantization by kind: scales, zeros, codebook, indices."""
    largest: int
    """Elements of the largest quantized matrix, or of the largest tensor if none is quantized."""

    @property
    def total(self) -> int:
        """Total size in bytes."""
        return self.packed + self.plain + sum(self.overhead.values())


def unquantized(tensors: Mapping[str, TensorInfo], element_bytes: int) -> Weights:
    """Return the sizes of an unquantized model; `element_bytes` is bytes per element."""
    plain = sum(dense_bytes(tensor, element_bytes) for tensor in tensors.values())
    return Weights(0, plain, {}, max((t.elements for t in tensors.values()), default=0))


def quantized_linears(
    files: ModelFiles,
    element_bytes: int,
    quantize: Callable[[TensorInfo], tuple[int, Mapping[str, int]]],
    *,
    is_skipped: Callable[[str, TensorInfo], bool] | None = None,
) -> Weights:
    """Return the sizes of a model whose linear layers are quantized during loading.

    `quantize` returns a matrix's packed bytes and its overhead by kind (scales, zeros, codebook,
    indices). `is_skipped` returns whether a tensor stays unquantized; by default all tensors
    except linear layers do (`is_linear`). An unquantized float takes `element_bytes` bytes.
    """
    packed, plain, largest = 0, 0, 0
    overhead: Counter[str] = Counter()
    for name, tensor in files.tensors.items():
        if (
            is_skipped(name, tensor)
            if is_skipped
            else not is_linear(name, tensor, files.vocabulary)
        ):
            plain += dense_bytes(tensor, element_bytes)
            continue
        taken, added = quantize(tensor)
        packed, largest = packed + taken, max(largest, tensor.elements)
        overhead.update(added)
    return Weights(packed, plain, dict(overhead), largest)


def as_stored(tensors: Mapping[str, TensorInfo]) -> Weights:
    """Return the sizes of a checkpoint that its engine loads without converting any tensor."""
    packed, plain, largest = 0, 0, 0
    overhead: Counter[str] = Counter()
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        kind = next((kind for kind, names in OVERHEAD.items() if last in names), None)
        if last.startswith("bitsandbytes__"):  # metadata as JSON, not loaded
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


def dequantized(tensors: Mapping[str, TensorInfo], element_bytes: int) -> Weights:
    """Return the sizes of an FP8 or MXFP4 checkpoint that is dequantized during loading.

    `element_bytes` is bytes per element. An MXFP4 byte has two weights.
    """
    plain, largest = 0, 0
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        if last.endswith("_scales") or last in OVERHEAD["scales"]:
            continue
        elements = tensor.elements * (2 if last.endswith("_blocks") else 1)
        plain, largest = plain + elements * element_bytes, max(largest, elements)
    return Weights(0, plain, {}, largest)


def dense_bytes(tensor: TensorInfo, element_bytes: int) -> int:
    """Return the bytes of an unquantized tensor; each float is cast to `element_bytes` bytes."""
    return tensor.elements * element_bytes if tensor.dtype in FLOATS else tensor.bytes


def is_linear(name: str, tensor: TensorInfo, vocabulary: int | None) -> bool:
    """Return whether a tensor is a linear layer's matrix, neither embedding nor output head.

    Outside the stack of layers, a matrix with `vocabulary` rows counts as embedding or head.
    """
    return (
        name.endswith(".weight")
        and len(tensor.shape) == 2
        and not EMBEDDING.search(name)
        and not HEAD.search(name)
        and (tensor.shape[0] != vocabulary or bool(BLOCK.search(name)))
    )


def divide_up(count: int, by: int) -> int:
    """Return `count` / `by`, rounded up."""
    return -(-count // by)
