"""Guess the size of a model from its name, if none of its files is on this machine.

Names on the Hugging Face hub usually state the number of parameters: `Llama-2-7b-chat-hf`,
`SmolLM2-135M`, `Mixtral-8x7B`. The guess is for a first look before a download. An estimate from
the tensor headers of the files replaces it.
"""

from __future__ import annotations

import re

from quantchat.estimate.model_files import ModelFiles, TensorInfo

_PARAMETERS = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z])", re.I)
"""`7b`, `1.5B`, `135M` or `8x7B`, standing alone in a name."""
_BITS = re.compile(r"(?:int|w)([2348])(?![0-9])|(?<![0-9])([2348])[-_]?bits?", re.I)
"""`Int4`, `w4a16`, `4bit` or `8-bit`."""
_USUAL_BITS = 4
"""Bits per weight of most published checkpoints that are quantized with calibration."""
_OVERHEAD_BITS = 0.5
"""Approximate bits per weight of scales, zeros and the unquantized embedding."""
_LAYERS, _WIDTH = 224, 4096
"""`full_precision` divides the parameters into `_LAYERS` matrices with `_WIDTH` columns each."""


def parameters(model: str) -> int | None:
    """Return the number of parameters that the name of `model` states, or None."""
    found = _PARAMETERS.search(model.partition("@")[0].rpartition("/")[2])
    if found is None:
        return None
    experts, count, unit = found.groups()
    return round(int(experts or 1) * float(count) * (1e9 if unit.lower() == "b" else 1e6))


def full_precision(model: str) -> ModelFiles | None:
    """Return invented headers that add up to about the size of `model` in bf16.

    None if its name states no size.
    """
    count = parameters(model)
    if count is None:
        return None
    matrix = TensorInfo("BF16", (max(1, count // (_LAYERS * _WIDTH)), _WIDTH))
    tensors = {f"model.layers.{number}.linear.weight": matrix for number in range(_LAYERS)}
    return ModelFiles({"dtype": "bfloat16"}, tensors)


def quantized_bytes(model: str, bits: int | None = None) -> int | None:
    """Return the approximate bytes of the checkpoint `model`; None if its name states no size.

    `bits` are the bits per weight; by default those in the name, else 4.
    """
    count = parameters(model)
    if count is None:
        return None
    stated = _BITS.search(model.rpartition("/")[2])
    bits = bits or (int(stated[1] or stated[2]) if stated else _USUAL_BITS)
    return round(count * (bits + _OVERHEAD_BITS) / 8)
