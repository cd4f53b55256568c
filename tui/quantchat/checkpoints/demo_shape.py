"""The config and tensor shapes of the demo's base model, known before its files exist."""

from __future__ import annotations

from typing import Any

from quantchat.estimate.model_files import ModelFiles, TensorInfo

_CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def demo_files() -> ModelFiles:
    """Return the config and tensor headers of SmolLM2-135M-Instruct in bfloat16.

    Source: Allal et al. 2025.
    """
    hidden, mlp = _CONFIG["hidden_size"], _CONFIG["intermediate_size"]
    keys = _CONFIG["num_key_value_heads"] * _CONFIG["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (_CONFIG["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(_CONFIG["num_hidden_layers"]):
        for name, shape in (
            ("self_attn.q_proj", (hidden, hidden)),
            ("self_attn.k_proj", (keys, hidden)),
            ("self_attn.v_proj", (keys, hidden)),
            ("self_attn.o_proj", (hidden, hidden)),
            ("mlp.gate_proj", (mlp, hidden)),
            ("mlp.up_proj", (mlp, hidden)),
            ("mlp.down_proj", (hidden, mlp)),
            ("input_layernorm", (hidden,)),
            ("post_attention_layernorm", (hidden,)),
        ):
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    tensors = {name: TensorInfo("BF16", shape) for name, shape in shapes.items()}
    return ModelFiles(_CONFIG, tensors)
