"""Declare the engine `transformers`: full precision, and checkpoints that it loads by itself."""

from __future__ import annotations

import importlib.util
from typing import Literal

from pydantic import Field, field_validator, model_validator

from quantchat.engines.engine import Engine, Method
from quantchat.engines.table import Line
from quantchat.engines.variant import OpensPickles
from quantchat.estimate.model_files import DTYPE_BYTES, ModelFiles
from quantchat.estimate.weights import Weights, dequantized
from quantchat.wire.library import Library


class Transformers(OpensPickles):
    """Plain transformers: the fp16/bf16 baseline, and any checkpoint that it loads by itself."""

    engine: Literal["transformers"]
    """What loads the model."""
    gguf_file: Line | None = Field(None, examples=["model-q4_1.gguf"])
    """Name of the GGUF file inside the model's folder or repository."""

    @field_validator("gguf_file")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        if value is not None and (value.startswith("/") or ".." in value.split("/")):
            raise ValueError("must be a file inside the model's folder, such as model-q4_1.gguf")
        return value

    @model_validator(mode="after")
    def _merges_into_no_gguf(self) -> Transformers:
        if self.merge_adapter and self.gguf_file:
            raise ValueError("merge_adapter takes weights in full precision, and no gguf_file")
        return self


class _Engine(Engine[Transformers]):
    table = Transformers
    summary = "not quantized, or any other checkpoint that transformers loads by itself"
    loader = "quantchat.worker.loaders.transformers"
    libraries = (Library("transformers", "transformers"), Library("accelerate", "accelerate"))
    methods = (
        Method("bf16", "bf16", {"dtype": "bfloat16"}),
        Method("fp16", "fp16", {"dtype": "float16"}),
    )
    resident_bytes = 460_000_000
    is_baseline = True

    def gguf_file(self, spec: Transformers) -> str:
        return spec.gguf_file or ""

    def weights(
        self, spec: Transformers, files: ModelFiles, size: int, *, cuda: bool, repacked: bool
    ) -> Weights:
        if _dequantized(spec, files, cuda):
            return dequantized(files.tensors, size)
        return super().weights(spec, files, size, cuda=cuda, repacked=repacked)

    def loading(
        self, spec: Transformers, files: ModelFiles, held: Weights, size: int, *, cuda: bool
    ) -> int:
        if cuda:
            return held.largest * size
        # The mapped pages of safetensors are the weights; of a GGUF file one tensor at a time is
        # dequantized to float32, and copied.
        return 2 * 4 * held.largest if spec.gguf_file else 0

    def notes(
        self, spec: Transformers, files: ModelFiles, dtype: str, *, cuda: bool, repacked: bool
    ) -> list[str]:
        method = _dequantized(spec, files, cuda)
        if not method:
            return []
        size = DTYPE_BYTES[dtype]
        held = self.weights(spec, files, size, cuda=cuda, repacked=repacked).total
        return [
            f"{method} is dequantized to {dtype} when it is loaded:"
            f" {held / 1e9:.1f} GB, not {files.bytes / 1e9:.1f} GB"
        ]


ENGINE = _Engine()


def _dequantized(spec: Transformers, files: ModelFiles, cuda: bool) -> str:
    """Return the `quant_method` that transformers dequantizes when it loads `files`; empty if none.

    Follows transformers' quantizers: to stay quantized, FP8 needs a GPU, and MXFP4 needs Triton and
    the package `kernels`.
    """
    method = str((files.quantization or {}).get("quant_method", "")).lower()
    if method in ("fp8", "mxfp8"):
        return "" if cuda else method
    if method == "mxfp4":
        there = all(importlib.util.find_spec(name) for name in ("triton", "kernels"))
        return "" if there and not (spec.python or spec.env) else method
    return ""
