"""Declare the engine `auto-gptq`: GPTQ with auto-gptq in an environment with transformers 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import model_validator

from quantchat.engines.engine import Engine
from quantchat.engines.gptqmodel import build_note
from quantchat.engines.quantize import Quantize
from quantchat.engines.variant import VariantBase
from quantchat.estimate.model_files import ModelFiles
from quantchat.estimate.weights import Weights
from quantchat.wire.library import FolderReader, Library


class AutoGptq(VariantBase):
    """GPTQ with auto-gptq, which is archived and needs its own environment with transformers 4."""

    engine: Literal["auto-gptq"]
    """Loads GPTQ checkpoints with auto-gptq."""
    kernel: Literal["auto", "cuda", "exllama", "exllama_v2", "marlin", "triton"] = "auto"
    """auto-gptq's name of a kernel, or `auto`. On a CPU there is only one kernel."""
    quantize: Quantize | None = None
    """If present, GPTQModel quantizes the model first, and the checkpoint is cached."""

    @model_validator(mode="after")
    def _has_environment(self) -> AutoGptq:
        if not (self.python or self.env):
            raise ValueError(
                "auto-gptq needs an environment of its own: `quantchat env create auto-gptq`,"
                ' and env = "auto-gptq" here'
            )
        return self


class _Engine(Engine[AutoGptq]):
    variant_table = AutoGptq
    summary = 'GPTQ with auto-gptq, in an environment that has it (env = "auto-gptq")'
    example: ClassVar[Mapping[str, str]] = {"env": "auto-gptq"}
    loader = "quantchat.worker.loaders.auto_gptq"
    libraries = (
        Library(
            "auto-gptq",
            "auto_gptq",
            dependency=False,
            install='quantchat env create auto-gptq, and env = "auto-gptq" in the variant',
        ),
    )
    reader = FolderReader(reads_quantize_config=True, builds_vision=False)
    environments: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "auto-gptq": (
            "auto-gptq==0.7.1",
            "transformers==4.49.0",
            "datasets<4",
            "peft<0.15",
            "accelerate<1.4",
            "numpy<2.3",
            "torch>=2.8,<2.14",
        )
    }
    stage = "quantchat.checkpoints.gptq_stage:stage_of"
    idle_worker_bytes = 410_000_000
    only_quantized = True
    spreads = False
    selects_attention = False
    pads_cache = False

    def auto_dtype(self, files: ModelFiles, *, cuda: bool) -> str:
        return "float16" if cuda else "float32"  # its kernels do not support bfloat16

    def loading(
        self, spec: AutoGptq, files: ModelFiles, weights: Weights, element_bytes: int, *, cuda: bool
    ) -> int:
        return weights.largest * element_bytes if cuda else weights.total

    def notes(self, spec: AutoGptq, files: ModelFiles, dtype: str, *, cuda: bool) -> list[str]:
        return build_note(spec, files, self.loaded_dtype(spec, files, cuda=True))


ENGINE = _Engine()
