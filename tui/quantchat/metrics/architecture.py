"""What a model's `config.json` says of its shape: layers, heads, and so the size of its KV cache.

Sizes here are counts of elements; bytes follow from the dtype. The keys are those of transformers'
configurations, older spellings (GPT-2, Falcon, BLOOM) among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SPELLINGS: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "intermediate": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "context": ("max_position_embeddings", "n_positions", "max_seq_len"),
}

_SLIDING = ("sliding_attention", "hybrid_sliding", "reference_sliding_attention")
_GROWING = ("full_attention", "indexed_attention", "hybrid")

_ALTERNATING = {"gemma2": 2, "gpt_oss": 2, "cohere2": 4, "gemma3_text": 6, "gemma3": 6}
"""One layer in so many attends to everything, where the config's `layer_types` does not say."""

_MOST_LAYERS = 10_000
"""More than any model has; a config that says so is no model's."""


@dataclass(frozen=True)
class Architecture:
    """The shape of a decoder. Made by `read_architecture`."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    context_length: int
    """Most tokens of prompt and answer; 0 where the config names none."""
    kv_width: int
    """Elements of keys and values of one token in one layer."""
    windows: tuple[int | None, ...]
    """For each layer how many tokens it keeps: None for all, 0 for one without a KV cache."""

    def kv_cache(self, tokens: int, allocated: int = 0) -> int:
        """Elements of the KV cache of one sequence of `tokens`.

        2 (K, V) × layers × KV heads × tokens × head size; a sliding window of w keeps w − 1. Layers
        without a window have room for `allocated` tokens, where that is more.
        """
        whole = max(tokens, allocated)
        kept = sum(whole if window is None else min(tokens, window) for window in self.windows)
        return self.kv_width * kept

    def activations(self, tokens: int) -> int:
        """Elements alive at once while a chunk of `tokens` passes one layer, about.

        Residual, its norm, queries, keys, values, attention's output: six of the hidden size; gate,
        up and their product: three of the MLP's. And the logits of one token, in float32.
        """
        return tokens * (6 * self.hidden + 3 * self.intermediate) + 2 * self.vocabulary


def read_architecture(config: Mapping[str, Any]) -> Architecture | None:
    """The architecture in a parsed `config.json`, None where it does not name one."""
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    layers, hidden, heads = (_number(text, key) for key in ("layers", "hidden", "heads"))
    if not layers or not hidden or not heads or layers > _MOST_LAYERS:
        return None
    return Architecture(
        layers=layers,
        hidden=hidden,
        intermediate=_number(text, "intermediate") or 4 * hidden,
        heads=heads,
        vocabulary=_whole(text.get("vocab_size")) or 0,
        context_length=_number(text, "context") or 0,
        kv_width=_kv_width(text, hidden, heads),
        windows=_windows(text, layers),
    )


def _kv_width(text: Mapping[str, Any], hidden: int, heads: int) -> int:
    if (latent := _whole(text.get("kv_lora_rank"))) and "qk_rope_head_dim" in text:
        # Latent attention (DeepSeek-V2): transformers 5 caches the latent and the rotary key.
        return latent + (_whole(text.get("qk_rope_head_dim")) or 0)
    kv_heads = _number(text, "kv_heads") or heads
    if text.get("multi_query") is True and not text.get("new_decoder_architecture"):
        kv_heads = 1  # Falcon, StarCoder: whatever other keys say
    return 2 * kv_heads * (_whole(text.get("head_dim")) or hidden // heads)


def _windows(text: Mapping[str, Any], layers: int) -> tuple[int | None, ...]:
    window = _whole(text.get("sliding_window"))
    if text.get("use_sliding_window") is False:
        window = None
    kinds = text.get("layer_types")
    if not isinstance(kinds, list) or len(kinds) != layers:
        every = _ALTERNATING.get(str(text.get("model_type")))
        every = _whole(text.get("sliding_window_pattern")) or every
        kinds = [
            "full_attention" if not window or (every and (n + 1) % every == 0) else _SLIDING[0]
            for n in range(layers)
        ]
    chunk = _whole(text.get("attention_chunk_size"))
    return tuple(_window(kind, window, chunk) for kind in kinds)


def _window(kind: Any, window: int | None, chunk: int | None) -> int | None:
    if kind in _SLIDING:
        return window and window - 1
    if kind == "chunked_attention":
        return chunk and chunk - 1
    return None if kind in _GROWING else 0  # recurrent states do not grow; MLPs have none


def _number(text: Mapping[str, Any], key: str) -> int | None:
    return next((n for name in _SPELLINGS[key] if (n := _whole(text.get(name)))), None)


def _whole(value: Any) -> int | None:
    """`value` if it is a positive whole number: a config may hold anything."""
    return value if type(value) is int and 0 < value < 2**40 else None
