"""Whether groups of weights fit a model: told before any time is spent on it."""

from __future__ import annotations

from typing import Any

from quantchat.worker.failures import Refused


def check_groups(model: Any, group_size: int) -> None:
    """Raise Refused where `group_size` does not divide the width of a layer to be quantized."""
    import torch

    if group_size < 0:
        return
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        width = getattr(module, "in_features", 0)
        if isinstance(module, torch.nn.Linear) and module is not head and width % group_size:
            fitting = [size for size in (128, 64, 32, 16) if width % size == 0]
            raise Refused(
                "unsupported",
                f"the group size {group_size} does not divide the width {width} of {name}",
                f"use a group size of {fitting[0] if fitting else '-1, a whole row'}",
            )
