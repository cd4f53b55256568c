"""Declare the engine `awq`: AWQ (Lin et al. 2023) with GPTQModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from quantchat.engines.engine import Method
from quantchat.engines.gptqmodel import GptqModelEngine, KernelKeys, Layer, awq_layer
from quantchat.engines.quantize import QuantizeAwq
from quantchat.estimate.model_files import TensorInfo


class Awq(KernelKeys):
    """AWQ with GPTQModel: a finished checkpoint, or one that is built here first (`quantize`)."""

    engine: Literal["awq"]
    """Loads AWQ checkpoints with GPTQModel."""
    quantize: QuantizeAwq | None = None
    """If present, the model is quantized first, and the checkpoint is cached."""


class _Engine(GptqModelEngine[Awq]):
    variant_table = Awq
    summary = "a finished AWQ checkpoint, or one built here first"
    loader = "quantchat.worker.loaders.awq"
    methods = (Method("awq", "AWQ 4-bit", saved={}, calibrated=True),)
    checkpoints = frozenset(("awq",))

    def label(self, spec: Awq) -> str:
        return "AWQ 4-bit" if spec.quantize else "AWQ"

    def is_indexed(self, spec: Awq) -> bool:
        return False

    def checkpoint_layer(self, tensors: Mapping[str, TensorInfo], stem: str, bits: Any) -> Layer:
        return awq_layer(tensors, stem)


ENGINE = _Engine()
