"""Declare the engine `transformers`: full precision, and checkpoints that transformers can load."""

from __future__ import annotations

import importlib.util
from typing import Literal

from pydantic import Field, model_validator

from quantchat.engines.engine import Capability, Engine, Method
from quantchat.engines.table import GgufFile
from quantchat.engines.variant import AdapterAndPickleKeys
from quantchat.estimate.model_files import ModelFiles
from quantchat.estimate.weights import Weights
from quantchat.wire.library import Library

_FP8: Capability = (8, 9)
_MXFP4: Capability = (7, 5)
"""The lowest compute capability of a GPU that computes with FP8 or MXFP4 weights."""


class Transformers(AdapterAndPickleKeys):
    """Plain transformers: the fp16/bf16 baseline, and any checkpoint that it loads by itself."""

    engine: Literal["transformers"]
    """Loads the model with transformers alone."""
    gguf_file: GgufFile | None = Field(None, examples=["model-q4_1.gguf"])
    """Name of the GGUF file inside the model's folder or repository."""

    @model_validator(mode="after")
    def _merges_into_no_gguf(self) -> Transformers:
        if self.merge_adapter and self.gguf_file:
            raise ValueError(
                "merge_adapter needs weights in full precision, and does not work with gguf_file"
            )
        return self


class _Engine(Engine[Transformers]):
    variant_table = Transformers
    summary = "not quantized, or any other checkpoint that transformers loads by itself"
    loader = "quantchat.worker.loaders.transformers"
    libraries = (Library("transformers", "transformers"), Library("accelerate", "accelerate"))
    methods = (
        Method("bf16", "bf16", {"dtype": "bfloat16"}),
        Method("fp16", "fp16", {"dtype": "float16"}),
    )
    idle_worker_bytes = 460_000_000
    is_baseline = True

    def gguf_file(self, spec: Transformers) -> str:
        return spec.gguf_file or ""

    def loaded_dtype(self, spec: Transformers, files: ModelFiles, *, cuda: bool) -> str:
        if spec.gguf_file and spec.dtype == "auto":
            return "float32"
        return super().loaded_dtype(spec, files, cuda=cuda)

    def dequantizes(
        self, spec: Transformers, files: ModelFiles, *, cuda: bool, capability: Capability | None
    ) -> str:
        # transformers' quantizers dequantize in the same cases. FP8 needs a GPU of capability 8.9.
        # MXFP4 needs Triton and the package `kernels`, and on a GPU the capability 7.5. An unknown
        # capability counts as high enough.
        if spec.gguf_file:
            return spec.gguf_file
        method = str((files.quantization or {}).get("quant_method", "")).lower()
        if method in ("fp8", "mxfp8"):
            return "" if cuda and (capability or _FP8) >= _FP8 else method
        if method == "mxfp4":
            there = all(importlib.util.find_spec(name) for name in ("triton", "kernels"))
            here = there and not (spec.python or spec.env)
            return "" if here and (capability or _MXFP4) >= _MXFP4 else method
        return ""

    def loading(
        self,
        spec: Transformers,
        files: ModelFiles,
        weights: Weights,
        element_bytes: int,
        *,
        cuda: bool,
    ) -> int:
        if cuda:
            return weights.largest * element_bytes
        # The mapped pages of safetensors files serve as the weights, so loading needs no further
        # memory. With a GGUF file, one tensor at a time is dequantized to float32 and copied.
        return 2 * 4 * weights.largest if spec.gguf_file else 0


ENGINE = _Engine()
