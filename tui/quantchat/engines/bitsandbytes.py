"""Declare the engine `bitsandbytes`: NF4, FP4 and int8, quantized while the model is loaded.

Bytes of a quantized matrix with n elements (source: the code of bitsandbytes 0.50):

    NF4, FP4   n ÷ 2, a float32 scale per 64 elements, a codebook of 16 float32; with double
               quantization (QLoRA, Dettmers et al. 2023, section 3) a scale is one byte, 256 scales
               share a float32, and a codebook of 256 float32 is added
    int8       n, and a float32 scale per row (LLM.int8(), Dettmers et al. 2022)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from quantchat.common.bitsandbytes_repacking import is_repackable
from quantchat.engines.engine import Method
from quantchat.engines.on_load import QuantizedOnLoad
from quantchat.engines.variant import AdapterAndPickleKeys, DType
from quantchat.estimate.model_files import ModelFiles, TensorInfo
from quantchat.estimate.weights import Weights, divide_up
from quantchat.wire.library import Library

_OWN_LINEARS = ("falcon",)
"""Model types with their own classes of linear layers, which bitsandbytes does not quantize."""


class BitsAndBytes(AdapterAndPickleKeys):
    """bitsandbytes: quantizes while loading, without calibration."""

    engine: Literal["bitsandbytes"]
    """Quantizes to NF4, FP4 or int8 with bitsandbytes."""
    quant_type: Literal["nf4", "fp4", "int8"] = "nf4"
    """`nf4` and `fp4` are 4-bit (QLoRA, Dettmers et al. 2023), `int8` is LLM.int8()."""
    double_quant: bool = True
    """Quantize the scales of the 4-bit weights too, which saves about 0.4 bits per weight."""
    compute_dtype: DType = "auto"
    """Dtype of the matrix products; `auto` is the variant's dtype."""
    save_quantized: bool = False
    """Cache the quantized checkpoint and load it at later starts, which then read a quarter of the
    bytes and quantize nothing."""


class _Engine(QuantizedOnLoad[BitsAndBytes]):
    variant_table = BitsAndBytes
    summary = "quantized while loading, without calibration"
    loader = "quantchat.worker.loaders.bitsandbytes"
    libraries = (Library("bitsandbytes", "bitsandbytes"),)
    stage = "quantchat.checkpoints.bitsandbytes_stage:stage_of"
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

    def weights(
        self,
        spec: BitsAndBytes,
        files: ModelFiles,
        element_bytes: int,
        *,
        cuda: bool,
        avx512_bf16: bool,
    ) -> Weights:
        weights = super().weights(spec, files, element_bytes, cuda=cuda, avx512_bf16=avx512_bf16)
        # The CPU kernel's layout replaces the scales of a saved checkpoint by 2 bytes per 64
        # weights.
        finished = files.quantization is not None
        if finished and avx512_bf16 and not cuda and "codebook" in weights.overhead:
            scales = 2 * divide_up(2 * weights.packed, 64)
            return replace(weights, overhead={**weights.overhead, "scales": scales})
        return weights

    def quantized_layer_bytes(
        self,
        spec: BitsAndBytes,
        files: ModelFiles,
        tensor: TensorInfo,
        element_bytes: int,
        *,
        repacked_for_avx512: bool,
    ) -> tuple[int, Mapping[str, int]]:
        """Return the bytes of the quantized weights, and of scales and codebook.

        On a CPU with AVX512-BF16, bitsandbytes repacks the 4-bit weights, and stores their scales
        in bfloat16.
        """
        if spec.quant_type == "int8":
            return tensor.elements, {"scales": 4 * tensor.shape[0]}
        repacked = repacked_for_avx512 and is_repackable(tensor.shape[0], tensor.shape[1])
        overhead = _four_bit_overhead(tensor.elements, spec.double_quant, repacked)
        return divide_up(tensor.elements, 2), overhead

    def left_unquantized(self, spec: BitsAndBytes, files: ModelFiles, tensor: TensorInfo) -> str:
        if str(files.config.get("model_type")) in _OWN_LINEARS:
            return "layers of its own classes"
        return ""


ENGINE = _Engine()


def _four_bit_overhead(elements: int, double_quant: bool, repacked: bool) -> dict[str, int]:
    scales = divide_up(elements, 64)
    if repacked:  # _convert_weight_packed_for_cpu: scales in bfloat16, without double quantization
        return {"scales": 2 * scales, "codebook": 4 * 16}
    if double_quant:
        # One byte for each scale, one float32 for 256 scales, and their mean.
        return {"scales": scales + 4 * divide_up(scales, 256) + 4, "codebook": 4 * (16 + 256)}
    return {"scales": 4 * scales, "codebook": 4 * 16}
