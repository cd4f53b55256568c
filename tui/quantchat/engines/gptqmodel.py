"""The base class of engines that load checkpoints with GPTQModel, finished or built here.

Bytes of a quantized matrix with n elements: n × bits ÷ 8 for the weights; for each group of each
output a scale (2 bytes) and a zero point (`bits` bits); with GPTQ a group index (4 bytes) for each
input. Some kernels need more memory than the format (source of their layouts: the code of GPTQModel
7.6).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from quantchat.engines.engine import Engine, Table
from quantchat.engines.quantize import InGroups
from quantchat.engines.variant import AdapterKeys, VariantBase
from quantchat.estimate.model_files import DTYPE_BYTES, ModelFiles, TensorInfo
from quantchat.estimate.weights import (
    BLOCK,
    OTHER_MODALITIES,
    Weights,
    dense_bytes,
    divide_up,
    is_linear,
)
from quantchat.wire.library import FolderReader, Library

_METHOD = re.compile(r"^(gptq|awq)_")
"""The beginning of a kernel's name in GPTQModel, which a profile may leave out."""


class KernelKeys(AdapterKeys):
    """The keys of a variant whose engine loads with GPTQModel and has the table `quantize`."""

    kernel: str = Field(
        "auto",
        pattern=r"^[a-z0-9_]+$",
        examples=["auto", "marlin", "exllama_v2", "triton", "torch"],
    )
    """GPTQModel's name of a kernel: marlin, exllama_v2, triton, torch, … `auto`: on a GPU the first
    of these that supports the checkpoint and can be compiled; on a CPU GPTQModel chooses."""

    @model_validator(mode="after")
    def _merges_before_it_is_quantized(self) -> KernelKeys:
        if self.merge_adapter and self.calibration_table is None:
            raise ValueError(
                "merge_adapter needs a model that is quantized here, with [variants.quantize];"
                " remove merge_adapter to apply the adapter at run time"
            )
        return self


@dataclass(frozen=True)
class Layer:
    """A linear layer that is quantized, or will be quantized."""

    inputs: int
    outputs: int
    groups: int
    """Number of groups of inputs; each group has a scale for each output."""
    bits: int
    """Bits per weight."""
    indexed: bool
    """Whether the layer has a group index for each input, as with GPTQ."""

    def weight_bytes(self) -> int:
        """Return the bytes of the quantized weights."""
        return self.inputs * self.outputs * self.bits // 8

    def overhead(self, layout: str) -> dict[str, int]:
        """Return the bytes beside the weights in a kernel's `layout` (see `_layout`), by kind."""
        scales = 2 * self.groups * self.outputs
        zeros = self.groups * self.outputs * self.bits // 8
        indices = 4 * self.inputs * self.indexed
        if layout == "aten":  # scales and zeros in bfloat16, and a joined copy of both
            return {"scales": 2 * scales, "zeros": 2 * scales, "indices": 2 * indices}
        if layout == "torch":  # caches the unpacked zeros as bytes and the indices as int64
            unpacked = self.groups * self.outputs
            return {"scales": scales, "zeros": zeros + unpacked, "indices": 3 * indices}
        return {"scales": scales, "zeros": zeros, "indices": indices}


def gptq_layer(tensors: Mapping[str, TensorInfo], stem: str, bits: Any) -> Layer:
    """Return the layer in GPTQ's format whose weights are the tensor `stem`.qweight.

    `bits` comes from the quantization config of the checkpoint.
    """
    scales, indices = tensors.get(f"{stem}.scales"), tensors.get(f"{stem}.g_idx")
    rows, outputs = tensors[f"{stem}.qweight"].shape
    # With mixed precision a layer may have another number of bits than `bits`. It follows from the
    # rows of the packed weights and the number of inputs, which is the length of the group index.
    named = bits if isinstance(bits, int) and bits > 0 else 4
    inputs = indices.elements if indices else 32 * rows // named
    groups = scales.shape[0] if scales and scales.shape else 1
    return Layer(inputs, outputs, groups, 32 * rows // max(1, inputs), indexed=True)


def awq_layer(tensors: Mapping[str, TensorInfo], stem: str) -> Layer:
    """Return the layer in AWQ's format whose weights are the tensor `stem`.qweight."""
    scales = tensors.get(f"{stem}.scales")
    inputs, columns = tensors[f"{stem}.qweight"].shape
    groups = scales.shape[0] if scales and scales.shape else 1
    outputs = scales.shape[1] if scales and len(scales.shape) == 2 else 8 * columns
    return Layer(inputs, outputs, groups, 32 * columns // max(1, outputs), indexed=False)


class GptqModelEngine(Engine[Table]):
    """An engine that loads with GPTQModel: a finished checkpoint, or one that is built first."""

    libraries = (Library("gptqmodel", "gptqmodel"),)
    reader = FolderReader(reads_quantize_config=True, loads_processor=True)
    stage = "quantchat.checkpoints.gptq_stage:stage_of"
    idle_worker_bytes = 650_000_000
    only_quantized = True

    @abstractmethod
    def checkpoint_layer(self, tensors: Mapping[str, TensorInfo], stem: str, bits: Any) -> Layer:
        """Return the layer whose weights are the tensor `stem`.qweight of a checkpoint.

        `bits` comes from the quantization config of the checkpoint.
        """

    @abstractmethod
    def is_indexed(self, spec: Table) -> bool:
        """Return whether a layer that is built for `spec` has a group index for each input."""

    def auto_dtype(self, files: ModelFiles, *, cuda: bool) -> str:
        """Return float16 for a float16 model on a GPU, else bfloat16."""
        return "float16" if cuda and files.dtype == "float16" else "bfloat16"

    def weights(
        self, spec: Table, files: ModelFiles, element_bytes: int, *, cuda: bool, avx512_bf16: bool
    ) -> Weights:
        """Return the size of the weights in the layout of the kernel that will run."""
        made = files.quantization
        layers, rest = (
            self._checkpoint_layers(files.tensors, made)
            if made
            else self._layers_to_build(spec, files)
        )
        packed = 0
        overhead: Counter[str] = Counter()
        kernel = _METHOD.sub("", getattr(spec, "kernel", "auto"))
        for layer in layers:
            packed += layer.weight_bytes()
            overhead.update(layer.overhead(_layout(kernel, layer, cuda)))
        overhead += Counter()  # drops kinds with 0 bytes
        plain = sum(dense_bytes(tensor, element_bytes) for tensor in rest)
        largest = max((layer.inputs * layer.outputs for layer in layers), default=0)
        return Weights(packed, plain, dict(overhead), largest)

    def loading(
        self, spec: Table, files: ModelFiles, weights: Weights, element_bytes: int, *, cuda: bool
    ) -> int:
        """Return the bytes needed beyond the weights during loading.

        On a GPU this is one matrix in int32, because kernels unpack and repack each matrix. On a
        CPU it is as much as the weights themselves.
        """
        return weights.largest * 4 if cuda else weights.total

    def notes(self, spec: Table, files: ModelFiles, dtype: str, *, cuda: bool) -> list[str]:
        """Return a note on the memory to build the checkpoint, if it is not built yet."""
        return build_note(spec, files, self.loaded_dtype(spec, files, cuda=True))

    def _checkpoint_layers(
        self, tensors: Mapping[str, TensorInfo], made: Mapping[str, Any]
    ) -> tuple[list[Layer], list[TensorInfo]]:
        layers, rest = [], []
        for name, tensor in tensors.items():
            stem, _, last = name.rpartition(".")
            if last == "qweight" and len(tensor.shape) == 2:
                layers.append(self.checkpoint_layer(tensors, stem, made.get("bits")))
            elif last not in ("qzeros", "scales", "g_idx"):
                rest.append(tensor)
        return layers, rest

    def _layers_to_build(
        self, spec: Table, files: ModelFiles
    ) -> tuple[list[Layer], list[TensorInfo]]:
        layers, rest = [], []
        made = spec.calibration_table
        bits, group_size = (made.bits, made.group_size) if isinstance(made, InGroups) else (4, 128)
        for name, tensor in files.tensors.items():
            linear = is_linear(name, tensor, files.vocabulary)
            if linear and BLOCK.search(name) and not OTHER_MODALITIES.search(name):
                outputs, inputs = tensor.shape
                groups = divide_up(inputs, group_size) if group_size > 0 else 1
                layers.append(Layer(inputs, outputs, groups, bits, self.is_indexed(spec)))
            else:
                rest.append(tensor)
        return layers, rest


def build_note(spec: VariantBase, files: ModelFiles, dtype: str) -> list[str]:
    """Return a note on the memory to load the base in `dtype`, if the checkpoint is not built yet.

    Return an empty list for a finished checkpoint.
    """
    if spec.calibration_table is None or files.quantization is not None:
        return []
    size = DTYPE_BYTES[dtype] * sum(tensor.elements for tensor in files.tensors.values())
    return [
        f"must be built first from the base model, which takes {size / 2**30:.1f} GiB when loaded"
    ]


def _layout(kernel: str, layer: Layer, cuda: bool) -> str:
    """Return the memory layout of the kernel that will run: `stored`, `torch` or `aten`.

    `stored` is the layout of the file: a layer needs as many bytes as in the file, or fewer.
    `torch` and `aten` are the layouts of GPTQModel's kernels `torch` and `torch_aten`, which need
    more.
    """
    if kernel == "torch":
        return "torch"
    if cuda or kernel not in ("auto", "torch_aten"):
        return "stored"
    size = -(-layer.inputs // layer.groups)
    return "aten" if layer.bits == 4 and size in (16, 32, 64, 128) else "torch"
