"""Declare the engine `torchao`: int4, int8, float8 and NVFP4, quantized while the model is loaded.

Bytes of a quantized matrix with n elements (source: the code of torchao 0.18):

    int4       n ÷ 2 for the weights; 2 for the scale and 2 for the zero point of each group
    int8       n for the weights; 4 for the scale (float32) and 1 for the zero point of each row
    float8     n for the weights; 4 for the scale (float32) of each row
    nvfp4      n ÷ 2 for the weights; 1 for the scale (float8) of each 16 weights in a row, where
               the matrix of scales is padded to multiples of 128 rows and 4 columns; 4 for the
               scale (float32) of the matrix
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from quantchat.common.group_size import fitting_group
from quantchat.engines.engine import Method
from quantchat.engines.on_load import QuantizedOnLoad
from quantchat.engines.variant import AdapterAndPickleKeys
from quantchat.estimate.model_files import ModelFiles, TensorInfo
from quantchat.estimate.weights import divide_up, is_linear
from quantchat.wire.library import Library


class TorchAO(AdapterAndPickleKeys):
    """torchao: quantizes while loading, without calibration."""

    engine: Literal["torchao"]
    """Quantizes with torchao."""
    quant_type: Literal["int4", "int8", "int8-dynamic", "float8", "nvfp4"] = "int4"
    """The format of the quantized weights. `int4` has a scale for each group of weights, `nvfp4`
    for each 16 weights, the other formats for each row. `int8-dynamic` also quantizes the
    activations to int8 for every product. `float8` and `nvfp4` weights are unpacked for every
    product: on a GPU that supports these formats, other programs can be faster."""
    group_size: Literal[32, 64, 128] | None = None
    """For int4: number of weights that share a scale. By default the largest of 128, 64 and 32 that
    divides the input width of every linear layer."""


class _Engine(QuantizedOnLoad[TorchAO]):
    variant_table = TorchAO
    summary = "int4, int8, float8 or NVFP4, quantized while loading, without calibration"
    loader = "quantchat.worker.loaders.torchao"
    libraries = (Library("torchao", "torchao"),)
    methods = tuple(
        Method(f"torchao-{kind}", f"torchao {kind}", {"quant_type": kind})
        for kind in ("int4", "int8", "int8-dynamic", "float8", "nvfp4")
    )
    idle_worker_bytes = 560_000_000

    def quantized_layer_bytes(
        self,
        spec: TorchAO,
        files: ModelFiles,
        tensor: TensorInfo,
        element_bytes: int,
        *,
        repacked_for_avx512: bool,
    ) -> tuple[int, Mapping[str, int]]:
        """Return the bytes of the quantized weights and of scales and zeros.

        torchao has the same layout on every processor, so `repacked_for_avx512` changes nothing.
        """
        rows = tensor.shape[0]
        if spec.quant_type == "int4":
            groups = tensor.elements // self._group(spec, files)
            return tensor.elements // 2, {"scales": 2 * groups, "zeros": 2 * groups}
        if spec.quant_type == "nvfp4":
            tiles = divide_up(rows, 128) * divide_up(tensor.shape[1], 64)
            return tensor.elements // 2, {"scales": 128 * 4 * tiles + 4}
        if spec.quant_type == "float8":
            return tensor.elements, {"scales": 4 * rows}
        return tensor.elements, {"scales": 4 * rows, "zeros": rows}

    def left_unquantized(self, spec: TorchAO, files: ModelFiles, tensor: TensorInfo) -> str:
        if spec.quant_type == "int4" and tensor.shape[1] % self._group(spec, files):
            return f"layers whose width is not a multiple of {self._group(spec, files)}"
        if spec.quant_type == "nvfp4" and any(width % 16 for width in tensor.shape):
            return "layers whose width is not a multiple of 16"
        return ""

    def _group(self, spec: TorchAO, files: ModelFiles) -> int:
        """Return the group size of int4: the key `group_size`, or else the largest that fits.

        That is the largest of 128, 64 and 32 that divides the input width of every linear layer; 32
        if none does.
        """
        if spec.group_size:
            return spec.group_size
        input_widths = (
            tensor.shape[1]
            for name, tensor in files.tensors.items()
            if is_linear(name, tensor, files.vocabulary)
        )
        group_size = fitting_group(input_widths)
        return group_size if group_size > 0 else 32


ENGINE = _Engine()
