"""Declare the engine `autoround`: AutoRound (Cheng et al. 2023), computed with GPTQModel's kernels.

The library auto-round makes the checkpoint, in the format of GPTQ or of AWQ. It can also make GGUF
files, which the engine `gguf` loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from quantchat.engines.engine import Method
from quantchat.engines.gptqmodel import GptqModelEngine, KernelKeys, Layer, awq_layer, gptq_layer
from quantchat.engines.quantize import QuantizeAutoRound
from quantchat.estimate.model_files import TensorInfo
from quantchat.wire.library import Library

AUTO_ROUND = Library("auto-round", "auto_round", dependency=False, extra="autoround")
"""The library that builds checkpoints; loading a checkpoint does not need it."""


GPTQ_FORMAT = "auto_gptq"
"""auto-round's name for GPTQ's checkpoint format, which is the default."""


class AutoRound(KernelKeys):
    """AutoRound: a checkpoint in GPTQ's or AWQ's format, or one built here first (`quantize`)."""

    engine: Literal["autoround"]
    """Loads AutoRound checkpoints with GPTQModel."""
    quantize: QuantizeAutoRound | None = None
    """If present, the model is quantized first, and the checkpoint is cached."""


class _Engine(GptqModelEngine[AutoRound]):
    variant_table = AutoRound
    summary = (
        "a finished AutoRound checkpoint in the format of GPTQ or AWQ, or one built here first"
    )
    loader = "quantchat.worker.loaders.autoround"
    stage = "quantchat.checkpoints.autoround_stage:stage_of"
    methods = (
        Method("autoround", "AutoRound 4-bit", saved={}, calibrated=True, made_with=(AUTO_ROUND,)),
    )

    def label(self, spec: AutoRound) -> str:
        if spec.quantize is None:
            return "AutoRound"
        form = "" if self.is_indexed(spec) else " (AWQ)"
        return f"AutoRound {spec.quantize.bits}-bit{form}"

    def is_indexed(self, spec: AutoRound) -> bool:
        return spec.quantize is None or spec.quantize.format == GPTQ_FORMAT

    def checkpoint_layer(self, tensors: Mapping[str, TensorInfo], stem: str, bits: Any) -> Layer:
        weights, scales = tensors[f"{stem}.qweight"].shape, tensors.get(f"{stem}.scales")
        # GPTQ packs the inputs of a layer into words, AWQ its outputs.
        if scales and weights[-1] != scales.shape[-1]:
            return awq_layer(tensors, stem)
        return gptq_layer(tensors, stem, bits)


ENGINE = _Engine()
