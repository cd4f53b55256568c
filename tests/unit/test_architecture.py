"""The shape of a decoder from its config, and the size of its KV cache."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.model_folder import LLAMA_2_7B
from quantchat.metrics.architecture import read_architecture


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


_KEYS = [*LLAMA_2_7B, "text_config", "layer_types", "sliding_window", "n_layer", "head_dim"]
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
