"""A Llama of three blocks with grouped heads and random weights, built in milliseconds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from quantchat.wire.messages import LoadModel

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def tiny_llama(**more: Any) -> Any:
    """Return the model, in float32 with fixed weights. `more` goes to its config."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **more})).eval()


class Letters:
    """Replaces a tokenizer: one token for each letter."""

    def encode(self, text: str) -> Any:
        return SimpleNamespace(ids=[ord(letter) % VOCABULARY for letter in text])

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        del skip_special_tokens
        return "".join(map(chr, ids))


def loaded(model: Any = None, options: dict[str, Any] | None = None, **more: Any) -> Any:
    """What the modes need of an engine's `Loaded`."""
    return SimpleNamespace(
        command=LoadModel("transformers", "tiny", options or {}),
        model=model or tiny_llama(),
        device="cpu",
        input_device=torch.device("cpu"),
        tokenizer_backend=Letters(),
        context_length=1024,
        **more,
    )
