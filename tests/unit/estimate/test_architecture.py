"""The shape of a decoder from its config, and the size of its KV cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.model_folder import LLAMA_2_7B
from quantchat.estimate.architecture import read_architecture


def kv_bytes(config: dict[str, Any], tokens: int) -> int:
    shape = read_architecture(config)
    assert shape is not None
    return 2 * shape.kv_cache(tokens)


def test_full_attention_is_as_published() -> None:
    assert kv_bytes(LLAMA_2_7B, 1) == 524_288  # "0.5 MB a token"
    grouped = {**LLAMA_2_7B, "num_key_value_heads": 8}  # as Llama 3 8B has them
    assert kv_bytes(grouped, 8192) == 2**30
    assert kv_bytes({**grouped, "head_dim": 256}, 1) == 2 * kv_bytes(grouped, 1)


@pytest.mark.parametrize(
    ("changes", "layers_of_all"),
    [
        ({"sliding_window": 17}, 0),  # Mistral
        ({"sliding_window": 17, "use_sliding_window": False}, 32),  # Qwen2
        ({"sliding_window": None}, 32),
        ({"sliding_window": 17, "model_type": "gemma2"}, 16),
        ({"sliding_window": 17, "sliding_window_pattern": 4}, 8),
        ({"sliding_window": 17, "layer_types": ["full_attention"] * 32}, 32),
        (
            {"sliding_window": 17, "layer_types": ["sliding_attention", "full_attention"] * 16},
            16,
        ),
    ],
)
def test_a_window_keeps_one_token_less_than_its_width(
    changes: dict[str, Any], layers_of_all: int
) -> None:
    one = 524_288 // 32
    expected = one * (1000 * layers_of_all + 16 * (32 - layers_of_all))
    assert kv_bytes({**LLAMA_2_7B, **changes}, 1000) == expected


def test_layers_without_a_growing_cache_have_none() -> None:
    kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 8
    assert kv_bytes({**LLAMA_2_7B, "layer_types": kinds}, 100) == 100 * 524_288 // 4


PUBLISHED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "kv_caches.json").read_bytes()
)
"""Configs with the keys that models are published with, and the bytes of keys and values in
bfloat16 after 8192 tokens: those that transformers 5.24 holds after a forward pass on the meta
device, or, where its model makes another cache, those its cache layers would hold."""


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model["name"])
def test_the_cache_of_a_published_model_is_as_transformers_holds_it(model: dict[str, Any]) -> None:
    assert kv_bytes(model["config"], 8192) == model["bytes"]


LATENT: dict[str, Any] = {
    "q_lora_rank": 16, "kv_lora_rank": 24, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "num_key_value_heads": 4,
}  # fmt: skip
INDEXED = {**LATENT, "index_n_heads": 2, "index_topk": 8, "n_group": 1, "topk_group": 1}
LONGCAT = {
    **LATENT, "model_type": "longcat_flash", "head_dim": 8, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "zero_expert_num": 2, "expert_ffn_hidden_size": 8,
}  # fmt: skip
MIMO: dict[str, Any] = {
    "model_type": "mimo_v2_flash", "num_hidden_layers": 7, "moe_intermediate_size": 8,
}  # fmt: skip
TINY: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 97, "num_local_experts": 4, "num_experts_per_tok": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt_oss", "head_dim": 8, "sliding_window": 20},
        {"model_type": "llama4_text", "head_dim": 8, "attention_chunk_size": 20},
        {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 2},
        {
            "model_type": "gemma4_text", "head_dim": 8, "global_head_dim": 16, "sliding_window": 20,
            "layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 97,
        },
        {"model_type": "deepseek_v32", **INDEXED},
        {"model_type": "deepseek_v32", **INDEXED, "index_head_dim": 16},
        {"model_type": "glm_moe_dsa", **INDEXED, "index_topk_freq": 2},
        {"model_type": "glm_moe_dsa", **INDEXED, "index_topk_pattern": "FSSF"},
        {"model_type": "glm_moe_dsa", **INDEXED, "indexer_types": ["full", "shared"] * 2},
        {**LONGCAT, "num_layers": 2},
        {**MIMO, "head_dim": 24, "v_head_dim": 8, "sliding_window": 20, "sliding_window_size": 20},
        {**MIMO, "head_dim": 24, "v_head_dim": 8, "sliding_window": 20},
        {**MIMO, "num_attention_heads": 8},
    ],
    ids=lambda config: config["model_type"],
)  # fmt: skip
def test_transformers_itself_holds_as_much(config: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

    from quantchat.worker.memory import kv_cache_bytes

    published = {**TINY, **config}
    made = AutoConfig.for_model(**published)
    model = AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16).eval()
    cache = DynamicCache(config=made)
    with torch.no_grad():
        model(torch.zeros(1, 50, dtype=torch.long), past_key_values=cache)
    assert kv_cache_bytes(cache) == kv_bytes(published, 50) > 0


def test_other_spellings() -> None:
    gpt2 = {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
    shape = read_architecture(gpt2)
    assert shape is not None
    assert (shape.intermediate, shape.context_length) == (3072, 1024)
    assert shape.kv_cache(1) == 2 * 12 * 768
    latent = {**LLAMA_2_7B, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    assert kv_bytes(latent, 1) == 2 * 32 * 576
    beside_vision = {"vision_config": {"hidden_size": 1}, "text_config": LLAMA_2_7B}
    assert kv_bytes(beside_vision, 1) == 524_288


_KEYS = [
    *LLAMA_2_7B, "text_config", "layer_types", "n_layer", "head_dim",
    "layers_block_type", "hybrid_override_pattern", "linear_attn_config", "attn_layer_indices",
    "attn_layer_period", "attn_layer_offset", "full_attention_interval", "block_types",
    "hybrid_layer_pattern", "num_kv_shared_layers", "kv_lora_rank", "qk_rope_head_dim",
    "index_head_dim", "index_topk_freq", "index_topk_pattern", "index_skip_topk_offset",
    "model_type", "num_layers", "sliding_window", "sliding_window_size",
    "cross_attention_layers", "per_layer_config",
]  # fmt: skip
_values = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers())


@given(
    st.dictionaries(st.sampled_from(_KEYS), _values | st.dictionaries(st.text(), _values)),
    st.integers(0, 10**6),
)
def test_any_config_has_a_size_or_none(config: dict[str, Any], tokens: int) -> None:
    shape = read_architecture({**LLAMA_2_7B, **config})
    if shape is not None:
        assert shape.kv_cache(tokens) >= 0
        assert shape.activations(tokens) >= 0
