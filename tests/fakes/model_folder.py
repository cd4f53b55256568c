"""Model folders of any model size, with headers but without weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name to dtype, as safetensors spells it, and shape."""

LLAMA_2_7B: dict[str, Any] = {
    "model_type": "llama",
    "torch_dtype": "float16",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
"""As published with the model."""


def llama_tensors(config: Mapping[str, Any], dtype: str = "F16") -> dict[str, Any]:
    """Return names, dtypes and shapes of the tensors of a Llama with this config."""
    hidden, mlp = config["hidden_size"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "lm_head.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(config["num_hidden_layers"]):
        stem = f"model.layers.{layer}"
        for name, shape in _layer(hidden, keys, mlp).items():
            shapes[f"{stem}.{name}.weight"] = shape
        shapes[f"{stem}.input_layernorm.weight"] = (hidden,)
        shapes[f"{stem}.post_attention_layernorm.weight"] = (hidden,)
    return {name: (dtype, shape) for name, shape in shapes.items()}


def gptq_tensors(config: Mapping[str, Any], bits: int, group: int) -> dict[str, Any]:
    """Return the tensors of the same Llama after GPTQ, packed into int32."""
    packed: dict[str, Any] = {}
    for name, (dtype, shape) in llama_tensors(config).items():
        if "_proj" not in name:
            packed[name] = (dtype, shape)
            continue
        outputs, inputs = shape
        stem, groups = name.removesuffix(".weight"), inputs // group
        packed[f"{stem}.qweight"] = ("I32", (inputs * bits // 32, outputs))
        packed[f"{stem}.qzeros"] = ("I32", (groups, outputs * bits // 32))
        packed[f"{stem}.scales"] = ("F16", (groups, outputs))
        packed[f"{stem}.g_idx"] = ("I32", (inputs,))
    return packed


def write_model(folder: Path, config: Mapping[str, Any], tensors: Tensors, shards: int = 1) -> Path:
    """Write `config` and the headers of `tensors` in `shards` files, without the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = list(tensors)
    placed = {name: index % shards for index, name in enumerate(names)}
    files = [
        "model.safetensors" if shards == 1 else f"model-{n + 1:05}-of-{shards:05}.safetensors"
        for n in range(shards)
    ]
    for index, file in enumerate(files):
        part = {name: tensors[name] for name in names if placed[name] == index}
        (folder / file).write_bytes(header(part))
    if shards > 1:
        body = {"weight_map": {name: files[placed[name]] for name in names}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(body))
    return folder


def header(tensors: Tensors) -> bytes:
    """Return the start of a safetensors file: length, then JSON."""
    body = {
        name: {"dtype": dtype, "shape": list(shape), "data_offsets": [0, 0]}
        for name, (dtype, shape) in tensors.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **body}).encode()
    return len(text).to_bytes(8, "little") + text


def _layer(hidden: int, keys: int, mlp: int) -> dict[str, tuple[int, int]]:
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
    }
