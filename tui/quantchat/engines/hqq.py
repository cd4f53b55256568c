"""Declare the engine `hqq`: half-quadratic quantization (Badri and Shaji 2023) while loading.

Bytes of a quantized matrix with n elements (source: the code of hqq 0.2.8): n × bits ÷ 8 for the
weights, or with 3 bits 4 bytes for each ten weights; and for each group a scale and a zero point in
the activations' dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from quantchat.engines.engine import Method
from quantchat.engines.on_load import QuantizedOnLoad
from quantchat.engines.variant import AdapterAndPickleKeys
from quantchat.estimate.model_files import ModelFiles, TensorInfo
from quantchat.estimate.weights import divide_up
from quantchat.wire.library import Library


class HQQ(AdapterAndPickleKeys):
    """HQQ: quantizes while loading, without calibration, and optimizes each group's zero point."""

    engine: Literal["hqq"]
    """Quantizes with half-quadratic quantization (HQQ)."""
    bits: Literal[2, 3, 4, 8] = 4
    """Bits per weight."""
    group_size: Literal[16, 32, 64, 128, 256] = 64
    """Number of weights that share a scale and a zero point."""


class _Engine(QuantizedOnLoad[HQQ]):
    variant_table = HQQ
    summary = "HQQ at 2, 3, 4 or 8 bits, quantized while loading, without calibration"
    loader = "quantchat.worker.loaders.hqq"
    libraries = (
        Library("hqq", "hqq", dependency=False, install="python -m pip install 'quantchat[hqq]'"),
    )
    methods = tuple(
        Method(f"hqq-{bits}bit", f"HQQ {bits}-bit", {"bits": bits}) for bits in (4, 3, 2, 8)
    )
    idle_worker_bytes = 560_000_000
    spreads = False

    def quantized_layer_bytes(
        self,
        spec: HQQ,
        files: ModelFiles,
        tensor: TensorInfo,
        element_bytes: int,
        *,
        repacked_for_avx512: bool,
    ) -> tuple[int, Mapping[str, int]]:
        """Return the bytes of the quantized weights and of scales and zeros.

        HQQ has the same layout on every processor, so `repacked_for_avx512` changes nothing.
        """
        groups = tensor.elements // spec.group_size
        overhead = {"scales": element_bytes * groups, "zeros": element_bytes * groups}
        if spec.bits == 3:
            # HQQ puts each group into a row, and packs ten such rows into one row of int32.
            return 4 * divide_up(groups, 10) * spec.group_size, overhead
        return tensor.elements * spec.bits // 8, overhead

    def left_unquantized(self, spec: HQQ, files: ModelFiles, tensor: TensorInfo) -> str:
        if tensor.elements % (8 * spec.group_size):
            return f"layers whose size is not a multiple of 8 groups of {spec.group_size}"
        return ""


ENGINE = _Engine()
