"""Declare the engine `gptq`: GPTQ with GPTQModel, for finished checkpoints and those built here.

Bytes of a quantized matrix with n elements: n × bits ÷ 8; a 2-byte scale and a zero of `bits` bits
per group and column; a 4-byte group index per input (GPTQModel's `gptq` format). Some kernels need
more memory than the format (source of their layouts: the code of GPTQModel 7.6).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from quantchat.engines.engine import Engine, Method
from quantchat.engines.quantize import Quantize
from quantchat.engines.variant import TakesAdapter, VariantBase
from quantchat.estimate.model_files import DTYPE_BYTES, ModelFiles, TensorInfo
from quantchat.estimate.weights import BESIDE, BLOCK, Weights, dense_bytes, divide_up, is_linear
from quantchat.wire.library import FolderReader, Library


class Gptq(TakesAdapter):
    """GPTQ with GPTQModel: a finished checkpoint, or one that is built here first (`quantize`)."""

    engine: Literal["gptq"]
    """What loads the model."""
    kernel: str = Field(
        "auto",
        pattern=r"^[a-z0-9_]+$",
        examples=["auto", "marlin", "exllama_v2", "triton", "torch"],
    )
    """A kernel by GPTQModel's name: marlin, exllama_v2, triton, torch, … `auto`: on a GPU the first
    of these that suits the checkpoint and can be compiled, on a CPU GPTQModel's own choice."""
    quantize: Quantize | None = None
    """Present: the model is quantized first, and the checkpoint kept in the cache."""

    @model_validator(mode="after")
    def _merges_before_it_is_quantized(self) -> Gptq:
        if self.merge_adapter and self.quantize is None:
            raise ValueError(
                "merge_adapter is for a model that is quantized here, [variants.quantize]: into"
                " weights that are quantized already nothing can be merged; without it the adapter"
                " is computed beside them"
            )
        return self


class _Engine(Engine[Gptq]):
    table = Gptq
    summary = "a finished GPTQ checkpoint, or one made here first"
    loader = "quantchat.worker.loaders.gptq"
    libraries = (Library("gptqmodel", "gptqmodel"),)
    reader = FolderReader(reads_quantize_config=True, loads_processor=True)
    methods = (Method("gptq", "GPTQ 4-bit", saved={}, calibrated=True),)
    checkpoints = frozenset(("gptq",))
    stage = "quantchat.checkpoints.gptq_stage:stage_of"
    resident_bytes = 650_000_000
    only_quantized = True

    def label(self, spec: Gptq) -> str:
        return f"GPTQ {spec.quantize.bits}-bit" if spec.quantize else "GPTQ"

    def cautions(self, spec: Gptq, *, cuda: bool) -> list[str]:
        return _slow_kernel(spec) if cuda else []

    def auto_dtype(self, files: ModelFiles, *, cuda: bool) -> str:
        return "float16" if cuda and files.dtype == "float16" else "bfloat16"

    def weights(
        self, spec: Gptq, files: ModelFiles, size: int, *, cuda: bool, repacked: bool
    ) -> Weights:
        made = files.quantization
        layers, rest = _finished(files.tensors, made) if made else _to_make(spec, files)
        packed = 0
        overhead: Counter[str] = Counter()
        for layer in layers:
            packed += layer.packed()
            overhead.update(layer.overhead(_layout(spec.kernel, layer, cuda)))
        plain = sum(dense_bytes(tensor, size) for tensor in rest)
        largest = max((layer.inputs * layer.outputs for layer in layers), default=0)
        return Weights(packed, plain, dict(overhead), largest)

    def loading(
        self, spec: Gptq, files: ModelFiles, held: Weights, size: int, *, cuda: bool
    ) -> int:
        # Its kernels unpack a matrix to int32 to pack it anew.
        return held.largest * 4 if cuda else held.total

    def notes(
        self, spec: Gptq, files: ModelFiles, dtype: str, *, cuda: bool, repacked: bool
    ) -> list[str]:
        return made_first(spec, files, self.loaded_dtype(spec, files, cuda=True))


ENGINE = _Engine()


def made_first(spec: VariantBase, files: ModelFiles, dtype: str) -> list[str]:
    """Return a note on the memory to load the base in `dtype`, if the checkpoint is not built yet.

    Return an empty list for a finished checkpoint.
    """
    if spec.calibrated is None or files.quantization is not None:
        return []
    size = DTYPE_BYTES[dtype] * sum(tensor.elements for tensor in files.tensors.values())
    return [f"to be made first, from the base: {size / 2**30:.1f} GiB while that is loaded"]


def _slow_kernel(spec: Gptq) -> list[str]:
    """Return a warning if the variant's kernel on a GPU will be slow or must be compiled first."""
    from quantchat.common import cuda_driver, cuda_toolkit  # for a plan alone
    from quantchat.common.gptq_kernels import AUTO_ON_GPU, EXTENSIONS, slow

    named = spec.kernel.removeprefix("gptq_")
    if named not in ("auto", *EXTENSIONS):
        cure = 'use kernel = "auto"'
        return [f"SLOW KERNEL: {slow(named, cure)}"]
    built_for = "" if spec.python or spec.env else cuda_driver.cuda_of_torch()
    problem = cuda_toolkit.lacking(built_for) if built_for else ""
    if not problem:
        return []
    if named != "auto":
        return [f"{named} must be compiled, and {problem} ({cuda_toolkit.INSTALL})"]
    told = slow(AUTO_ON_GPU[-2], f"{problem}: {cuda_toolkit.INSTALL}")
    return [f"SLOW KERNEL, unless a faster one was compiled before: {told}"]


@dataclass(frozen=True)
class _Layer:
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


def _finished(
    tensors: Mapping[str, TensorInfo], made: Mapping[str, Any]
) -> tuple[list[_Layer], list[TensorInfo]]:
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
            layers.append(_Layer(inputs, outputs, groups, 32 * rows // max(1, inputs)))
        elif last not in ("qzeros", "scales", "g_idx"):
            rest.append(tensor)
    return layers, rest


def _to_make(spec: Gptq, files: ModelFiles) -> tuple[list[_Layer], list[TensorInfo]]:
    layers, rest = [], []
    bits = spec.quantize.bits if spec.quantize else 4
    group_size = spec.quantize.group_size if spec.quantize else 128
    for name, tensor in files.tensors.items():
        linear = is_linear(name, tensor, files.vocabulary)
        if linear and BLOCK.search(name) and not BESIDE.search(name):
            outputs, inputs = tensor.shape
            groups = divide_up(inputs, group_size) if group_size > 0 else 1
            layers.append(_Layer(inputs, outputs, groups, bits))
        else:
            rest.append(tensor)
    return layers, rest


def _layout(kernel: str, layer: _Layer, cuda: bool) -> str:
    """Return the memory layout of the kernel that will run: `stored`, `torch` or `aten`.

    `stored` needs the size in the file, or less.
    """
    name = kernel.removeprefix("gptq_")
    if name == "torch":
        return "torch"
    if cuda or name not in ("auto", "torch_aten"):
        return "stored"
    size = -(-layer.inputs // layer.groups)
    return "aten" if layer.bits == 4 and size in (16, 32, 64, 128) else "torch"
