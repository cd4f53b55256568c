"""Declare the engine `bitsandbytes`: NF4, FP4 and int8, quantized while the model is loaded.

Bytes of a quantized matrix with n elements (source: the code of bitsandbytes 0.50):

    NF4, FP4   n ÷ 2, a float32 scale per 64 elements, a codebook of 16 float32; with double
               quantization (QLoRA, Dettmers et al. 2023, section 3) a scale is one byte, 256 scales
               share a float32, and a codebook of 256 float32 is added
    int8       n, and a float32 scale per row (LLM.int8(), Dettmers et al. 2022)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Literal

from quantchat.engines.engine import Engine, Method
from quantchat.engines.variant import DType, OpensPickles
from quantchat.estimate.model_files import ModelFiles, TensorInfo
from quantchat.estimate.weights import (
    BESIDE,
    EXPERTS,
    ROUTER,
    Weights,
    as_stored,
    divide_up,
    is_linear,
    quantized_linears,
)
from quantchat.wire.library import Library

_OWN_LINEARS = ("falcon",)
"""Kinds of models whose layers are classes of their own, which bitsandbytes does not take."""

_WORTH_SAYING = 0.05
"""Share of the layers that stays unquantized, from which on a note says so."""

_END = "embeddings, norms and biases"


class BitsAndBytes(OpensPickles):
    """bitsandbytes: quantizes while loading, without calibration."""

    engine: Literal["bitsandbytes"]
    """What loads the model."""
    quant_type: Literal["nf4", "fp4", "int8"] = "nf4"
    """`nf4` and `fp4` are 4-bit (QLoRA, Dettmers et al. 2023), `int8` is LLM.int8()."""
    double_quant: bool = True
    """Quantize the 4-bit scales too: about 0.4 bits per weight less."""
    compute_dtype: DType = "auto"
    """Dtype of the matrix products; `auto` is the variant's dtype."""
    save_quantized: bool = False
    """Save the quantized checkpoint in the cache, and load that from then on: a start reads a
    quarter of the bytes, and quantizes nothing."""


class _Engine(Engine[BitsAndBytes]):
    table = BitsAndBytes
    summary = "quantized while loading, without calibration"
    loader = "quantchat.worker.loaders.bitsandbytes"
    libraries = (Library("bitsandbytes", "bitsandbytes"),)
    stage = "quantchat.checkpoints.bitsandbytes_stage:stage_of"
    resident_bytes = 500_000_000
    methods = tuple(
        Method(kind, label, {"quant_type": kind}, saved={"save_quantized": True})
        for kind, label in (
            ("nf4", "NF4, double quant"),
            ("fp4", "FP4, double quant"),
            ("int8", "int8"),
        )
    )

    def is_saved(self, spec: BitsAndBytes) -> bool:
        return spec.save_quantized

    def auto_dtype(self, files: ModelFiles, *, cuda: bool) -> str:
        return "float16" if files.dtype == "float16" else "bfloat16"

    def weights(
        self, spec: BitsAndBytes, files: ModelFiles, size: int, *, cuda: bool, repacked: bool
    ) -> Weights:
        on_cpu = repacked and not cuda
        if files.quantization is not None:
            held = as_stored(files.tensors)
            if on_cpu and "codebook" in held.overhead:
                scales = 2 * divide_up(2 * held.packed, 64)
                return replace(held, overhead={**held.overhead, "scales": scales})
            return held
        four_bit = spec.quant_type != "int8"

        def quantize(tensor: TensorInfo) -> tuple[int, dict[str, int]]:
            if not four_bit:
                return tensor.elements, {"scales": 4 * tensor.shape[0]}
            overhead = _four_bit_overhead(tensor.elements, spec.double_quant, on_cpu)
            return divide_up(tensor.elements, 2), overhead

        def keep(name: str, tensor: TensorInfo) -> bool:
            return bool(_left_plain(name, tensor, files, on_cpu and four_bit))

        return quantized_linears(files, size, quantize, keep=keep)

    def notes(
        self, spec: BitsAndBytes, files: ModelFiles, dtype: str, *, cuda: bool, repacked: bool
    ) -> list[str]:
        left = _not_quantized(files, dtype, repacked and not cuda)
        return [left] if left else []


ENGINE = _Engine()


def _not_quantized(files: ModelFiles, dtype: str, repacked: bool) -> str:
    """Return a note on the parts of a model that bitsandbytes does not quantize, and their share.

    Empty if these parts are small (`_WORTH_SAYING`). transformers 5 stores the experts of a layer
    in one three-dimensional parameter, which is no linear layer.
    """
    if files.quantization is not None:
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
    share = 1 - quantized / (left.total() + ends + quantized)
    ours = ", embeddings included," if ends else ""
    parts = [part for part, count in left.most_common() if count > 0.1 * left.total()]
    return f"{' and '.join(parts)} not quantized: {share:.0%} of the weights{ours} stay {dtype}"


def _left_plain(name: str, tensor: TensorInfo, files: ModelFiles, repacked: bool) -> str:
    """Return the name of the unquantized part a tensor belongs to; empty if it is quantized."""
    if EXPERTS.search(name) and len(tensor.shape) > 1:
        return "experts"
    if not is_linear(name, tensor, files.vocabulary) or ROUTER.search(name):
        return _END
    if len(files.configs) > 1 and BESIDE.search(name):
        return "image and audio parts"
    if str(files.config.get("model_type")) in _OWN_LINEARS:
        return "its own kind of layers"
    if repacked and tensor.shape[0] % 32:
        return "layers whose width is no multiple of 32"
    return ""


def _four_bit_overhead(elements: int, double_quant: bool, repacked: bool) -> dict[str, int]:
    scales = divide_up(elements, 64)
    if repacked:  # bitsandbytes.functional._convert_weight_packed_for_cpu: bfloat16, never nested
        return {"scales": 2 * scales, "codebook": 4 * 16}
    if double_quant:
        # One byte for each, one float32 for 256 of them, and their mean.
        return {"scales": scales + 4 * divide_up(scales, 256) + 4, "codebook": 4 * (16 + 256)}
    return {"scales": 4 * scales, "codebook": 4 * 16}
