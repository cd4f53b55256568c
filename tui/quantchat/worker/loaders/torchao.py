"""Load models with torchao: int4, int8, float8 and NVFP4, quantized while transformers loads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantchat.common.group_size import fitting_group
from quantchat.wire.messages import WEIGHTS, LoadModel
from quantchat.worker.import_pruning import OPTIONAL
from quantchat.worker.model.contents import Contents
from quantchat.worker.model.devices import device_for
from quantchat.worker.model.files_check import refuse_quantized
from quantchat.worker.model.full_precision import (
    body_linears,
    half_precision,
    modules_in_full_precision,
    without_weights,
)
from quantchat.worker.model.loaded import Loaded, load_model
from quantchat.worker.model.tokenizer import fast_tokenizer

UNUSED = tuple(name for name in OPTIONAL if name != "torchao")

_BITS = {"int4": 4, "nvfp4": 4, "int8": 8, "int8-dynamic": 8, "float8": 8}

_BLOCK = 16
"""Number of weights that share a scale in NVFP4. torchao quantizes a layer only if its numbers of
inputs and of outputs are multiples of this."""


def load(command: LoadModel, stage: Callable[[str], None]) -> Loaded:
    """Load and quantize a model. `options`: `quant_type`, `group_size`.

    Without `group_size`, chooses a group size for int4. Raises Refused for a checkpoint that is
    quantized already.
    """
    import torchao  # noqa: F401 - before the stage WEIGHTS, so that the time counts as import
    from transformers import AutoConfig, TorchAoConfig

    refuse_quantized(command.model)
    device = device_for(command)
    tokenizer = fast_tokenizer(command)
    stage(WEIGHTS)
    config = AutoConfig.from_pretrained(command.model, trust_remote_code=command.trust_remote_code)
    layers, kind = without_weights(command, config), command.option("quant_type", "")
    group = command.option("group_size", 0) or _group(layers)
    skipped, note = modules_in_full_precision(layers, _refusal(kind, group))
    model = load_model(
        command,
        device,
        dtype=half_precision(command, config, device),
        quantization_config=TorchAoConfig(
            _config(kind, group, device), modules_to_not_convert=skipped
        ),
    )
    settings = f"int4 g{group}" if kind == "int4" else kind
    kernel = f"{Contents.of(model).kernel or 'not quantized'}, {settings}"
    return Loaded(
        command,
        model,
        tokenizer,
        kernel=kernel,
        note=note,
        slow_kernel=_slow(kind),
        bits=_BITS[kind],
    )


def _group(model: Any) -> int:
    """Return the largest usual group size that divides the number of inputs of every layer.

    If there is none, return 32, which divides most of them; the other layers are not quantized.
    """
    found = fitting_group(layer.in_features for _, layer in body_linears(model))
    return found if found > 0 else 32


def _refusal(kind: str, group: int) -> Callable[[Any], bool]:
    """Return a function that returns True for a linear layer that torchao cannot quantize.

    `kind` is the `quant_type`.
    """
    if kind == "int4":
        return lambda layer: layer.in_features % group > 0
    if kind == "nvfp4":
        return lambda layer: layer.in_features % _BLOCK > 0 or layer.out_features % _BLOCK > 0
    return lambda layer: False


def _config(kind: str, group: int, device: str) -> Any:
    """Return torchao's config for `kind`, a `quant_type`. Only int4 has groups.

    The memory layout of int4 weights differs between GPU and CPU.
    """
    from torchao import quantization

    if kind == "int8":
        return quantization.Int8WeightOnlyConfig()
    if kind == "int8-dynamic":
        return quantization.Int8DynamicActivationInt8WeightConfig()
    if kind == "float8":
        return quantization.Float8WeightOnlyConfig()
    if kind == "nvfp4":
        from torchao.prototype.mx_formats import NVFP4WeightOnlyConfig

        return NVFP4WeightOnlyConfig()
    if device.startswith("cuda"):
        return quantization.Int4WeightOnlyConfig(
            group_size=group, int4_packing_format="tile_packed_to_4d"
        )
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

    return PrototypeInt4WeightOnlyConfig(group_size=group)


def _slow(kind: str) -> str:
    """Return why the measured speed is misleading; empty if torchao has a kernel for `kind`."""
    if kind not in ("float8", "nvfp4"):
        return ""
    return f"torchao unpacks the {kind} weights for each product: compare quality, not speed"
