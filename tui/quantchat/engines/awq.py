"""Declare the engine `awq`: AWQ (Lin et al. 2023) with GPTQModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from quantchat.engines.engine import Method
from quantchat.engines.gptqmodel import GptqModelEngine, Layer, WithKernel
from quantchat.engines.quantize import QuantizeAwq
from quantchat.estimate.model_files import TensorInfo


class Awq(WithKernel):
    """AWQ with GPTQModel: a finished checkpoint, or one that is built here first (`quantize`)."""

    engine: Literal["awq"]
    """What loads the model."""
    quantize: QuantizeAwq | None = None
    """If present, the model is quantized first, and the checkpoint is cached."""


class _Engine(GptqModelEngine[Awq]):
    table = Awq
    summary = "a finished AWQ checkpoint, or one built here first"
    loader = "quantchat.worker.loaders.awq"
    methods = (Method("awq", "AWQ 4-bit", saved={}, calibrated=True),)
    checkpoints = frozenset(("awq",))

    def label(self, spec: Awq) -> str:
        return "AWQ 4-bit" if spec.quantize else "AWQ"

    def checkpoint_layer(self, tensors: Mapping[str, TensorInfo], stem: str, bits: Any) -> Layer:
        scales = tensors.get(f"{stem}.scales")
        inputs, columns = tensors[f"{stem}.qweight"].shape
        groups = scales.shape[0] if scales and scales.shape else 1
        outputs = scales.shape[1] if scales and len(scales.shape) == 2 else 8 * columns
        return Layer(inputs, outputs, groups, 32 * columns // max(1, outputs), indexed=False)


ENGINE = _Engine()
