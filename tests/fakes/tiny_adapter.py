"""A LoRA adapter for the tiny Llama, as PEFT saves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fakes.tiny_llama import tiny_llama

TARGETS = ["q_proj", "v_proj", "down_proj"]


def adapter_in(
    folder: Path, *, scale: float = 1.0, targets: list[str] | None = None, **model: Any
) -> Path:
    """An adapter trained on nothing: random weights in both of its factors. `model`: its config."""
    import peft

    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=targets or TARGETS, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(tiny_llama(**model), config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=scale)
    adapted.save_pretrained(folder)
    return folder
