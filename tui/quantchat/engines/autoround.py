"""Declare the engine `autoround`: AutoRound (Cheng et al. 2023), computed with GPTQModel's kernels.

The library auto-round makes the checkpoint, in GPTQ's format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from quantchat.engines.engine import Method
from quantchat.engines.gptqmodel import GptqModelEngine, Layer, WithKernel, gptq_layer
from quantchat.engines.quantize import QuantizeAutoRound
from quantchat.estimate.model_files import TensorInfo
from quantchat.wire.library import Library

AUTO_ROUND = Library("auto-round", "auto_round", dependency=False, extra="autoround")
"""The library that builds checkpoints; loading a checkpoint does not need it."""


class AutoRound(WithKernel):
    """AutoRound: a checkpoint in GPTQ's format, or one that is built here first (`quantize`)."""

    engine: Literal["autoround"]
    """What loads the model."""
    quantize: QuantizeAutoRound | None = None
    """If present, the model is quantized first, and the checkpoint is cached."""


class _Engine(GptqModelEngine[AutoRound]):
    table = AutoRound
    summary = "a finished AutoRound checkpoint in GPTQ's format, or one built here first"
    loader = "quantchat.worker.loaders.autoround"
    stage = "quantchat.checkpoints.autoround_stage:stage_of"
    methods = (
        Method("autoround", "AutoRound 4-bit", saved={}, calibrated=True, made_with=(AUTO_ROUND,)),
    )
    kernels = "gptq"
    indexed = True

    def label(self, spec: AutoRound) -> str:
        return f"AutoRound {spec.quantize.bits}-bit" if spec.quantize else "AutoRound"

    def checkpoint_layer(self, tensors: Mapping[str, TensorInfo], stem: str, bits: Any) -> Layer:
        return gptq_layer(tensors, stem, bits)


ENGINE = _Engine()
