"""Widths of a model's layers, for checking the group size and choosing the calibration size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quantchat.worker.failures import Refused


def check_groups(model: Any, group_size: int) -> None:
    """Raise Refused if `group_size` does not divide the width of a layer to be quantized."""
    if group_size < 0:
        return
    for name, width in _widths(model):
        if width % group_size:
            fitting = [size for size in (128, 64, 32, 16) if width % size == 0]
            raise Refused(
                "unsupported",
                f"the group size {group_size} does not divide the width {width} of {name}",
                f"use a group size of {fitting[0] if fitting else '-1, a whole row'}",
            )


def widest(model: Any) -> int:
    """Return the number of inputs of the widest layer to be quantized; 0 if there is no layer.

    GPTQ's Hessian of that layer is a sum over tokens, each of rank one (Frantar et al. 2022): with
    fewer tokens than inputs it is singular, and damping decides the missing directions.
    """
    return max((width for _, width in _widths(model)), default=0)


def widest_of(config: Any) -> int:
    """Return an estimate of `widest` for a model that is not loaded, from its `config`."""
    text = config.get_text_config()
    hidden = int(getattr(text, "hidden_size", 0))
    # If the config does not say it, the MLP is usually four times as wide.
    return max(hidden, int(getattr(text, "intermediate_size", None) or 4 * hidden))


def _widths(model: Any) -> Iterator[tuple[str, int]]:
    """Yield name and number of inputs of each layer of a transformers `model` to be quantized.

    GPTQModel quantizes only the decoder's blocks, not the head and not vision or audio towers:
    Gemma 3's vision tower has widths that no group size above 16 divides.
    """
    import torch

    head = model.get_output_embeddings()
    for name, module in model.get_decoder().named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            yield name, module.in_features
