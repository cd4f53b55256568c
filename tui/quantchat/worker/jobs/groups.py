"""Whether groups of weights fit a model: told before any time is spent on it."""

from __future__ import annotations

from typing import Any

from quantchat.worker.failures import Refused


def check_groups(model: Any, group_size: int) -> None:
    """Raise Refused where `group_size` does not divide the width of a layer to be quantized.

    `model` is transformers'. GPTQModel quantizes the blocks of the decoder, and leaves the head and
    what sees or hears as it is: Gemma 3's vision tower has widths that 16 is the largest group of.
    """
    import torch

    if group_size < 0:
        return
    head = model.get_output_embeddings()
    for name, module in model.get_decoder().named_modules():
        width = getattr(module, "in_features", 0)
        if isinstance(module, torch.nn.Linear) and module is not head and width % group_size:
            fitting = [size for size in (128, 64, 32, 16) if width % size == 0]
            raise Refused(
                "unsupported",
                f"the group size {group_size} does not divide the width {width} of {name}",
                f"use a group size of {fitting[0] if fitting else '-1, a whole row'}",
            )
