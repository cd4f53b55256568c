"""How wide a model's layers are: whether groups fit them, and how much calibration they want."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quantchat.worker.failures import Refused


def check_groups(model: Any, group_size: int) -> None:
    """Raise Refused where `group_size` does not divide the width of a layer to be quantized."""
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
    """Inputs of the widest layer to be quantized; 0 where there is none.

    GPTQ's Hessian of that layer is a sum over tokens, each of rank one (Frantar et al. 2022):
    of fewer tokens than inputs it is singular, and what they do not show is left to the damping.
    """
    return max((width for _, width in _widths(model)), default=0)


def widest_of(config: Any) -> int:
    """The same, nearly, of a model that is not loaded, from its `config`."""
    text = config.get_text_config()
    hidden = int(getattr(text, "hidden_size", 0))
    # Where it says nothing the MLP is, as a rule, four times as wide.
    return max(hidden, int(getattr(text, "intermediate_size", None) or 4 * hidden))


def _widths(model: Any) -> Iterator[tuple[str, int]]:
    """Name and inputs of each layer to be quantized; `model` is transformers'.

    GPTQModel quantizes the blocks of the decoder, and leaves the head and what sees or hears as it
    is: Gemma 3's vision tower has widths that 16 is the largest group of.
    """
    import torch

    head = model.get_output_embeddings()
    for name, module in model.get_decoder().named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            yield name, module.in_features
