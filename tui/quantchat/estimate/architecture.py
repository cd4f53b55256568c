"""Read a model's shape from `config.json`: layers, heads and the size of its KV cache.

Sizes are counts of elements; multiply them by the bytes of the dtype to get bytes. The keys are
those of transformers' configurations, including older spellings (GPT-2, Falcon, BLOOM).
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
"""Key: the name of a size in this module; value: the keys under which `config.json` may give this
size, because they differ between families of models."""

_SLIDING = ("sliding_attention", "hybrid_sliding", "reference_sliding_attention")
_GROWING = ("full_attention", "attention", "indexed_attention", "hybrid")
"""Kinds of layers whose KV cache is limited by a sliding window (`_SLIDING`) or grows with every
token (`_GROWING`). The cache of the kind `chunked_attention` is limited by a chunk (`_window`). All
other kinds have no KV cache: a recurrent state does not grow, and an MLP has no state."""

_ALTERNATING = {
    "cohere2": 4, "gemma2": 2, "gemma3": 6, "gemma3_text": 6, "gemma3n_text": 5, "gemma4_text": 6,
    "gpt_oss": 2,
}  # fmt: skip
"""Key: `model_type`; value: n, where one layer in n attends to all tokens and the others have a
sliding window. Used if the config has no `layer_types`."""

_GEMMA = {"num_attention_heads": 8, "head_dim": 256}
_DEFAULTS: dict[str, dict[str, int]] = {
    "gemma3_text": {
        **_GEMMA,
        "num_key_value_heads": 4, "sliding_window": 4096, "vocab_size": 262208,
    },
    "gemma3n_text": {
        **_GEMMA,
        "num_key_value_heads": 2, "sliding_window": 512, "num_kv_shared_layers": 15,
        "hidden_size": 2048, "num_hidden_layers": 35, "vocab_size": 262400,
    },
    "gemma4_text": {
        **_GEMMA,
        "num_key_value_heads": 4, "sliding_window": 512, "hidden_size": 2304,
        "num_hidden_layers": 30, "vocab_size": 262144, "global_head_dim": 512,
    },
    "mimo_v2_flash": {"head_dim": 192, "v_head_dim": 128, "sliding_window": 129},
    "deepseek_v32": {"index_head_dim": 128},
    "glm_moe_dsa": {"index_head_dim": 128},
    "qwen3_next": {"head_dim": 256, "num_key_value_heads": 2, "full_attention_interval": 4},
}  # fmt: skip
"""Key: `model_type`; value: the defaults of transformers' configuration class. They are needed
because a `config.json` may omit keys that have their default, as the text config of a multimodal
model does."""

_MOST_LAYERS = 10_000
"""More layers than any model has; a config with more is invalid."""


@dataclass(frozen=True)
class LayerCache:
    """The KV cache of one layer."""

    width: int
    """Elements of the keys and values of one token."""
    window: int | None
    """Maximum number of cached tokens: None for all, 0 for a layer without a KV cache."""

    def elements(self, tokens: int, whole: int) -> int:
        """Return the number of elements allocated for a sequence of `tokens`.

        A layer without a window is allocated for `whole` tokens instead: at least `tokens`.
        """
        return self.width * (whole if self.window is None else min(tokens, self.window))


@dataclass(frozen=True)
class Architecture:
    """The shape of a decoder, as `read_architecture` returns it."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    context_length: int
    """Maximum tokens of prompt and answer; 0 if the config gives none."""
    caches: tuple[LayerCache, ...]
    """The KV cache of each layer."""

    def kv_cache(self, tokens: int, allocated: int = 0) -> int:
        """Return the elements of the KV cache of one sequence of `tokens`.

        2 (K, V) × layers × KV heads × tokens × head size. A layer with a sliding window of w tokens
        caches w − 1 tokens, because the current token is one of the w. A layer without a window is
        allocated for `allocated` tokens if these are more than `tokens`.
        """
        whole = max(tokens, allocated)
        return sum(cache.elements(tokens, whole) for cache in self.caches)

    def activations(self, tokens: int) -> int:
        """Estimate the live elements while a chunk of `tokens` passes one layer.

        Six tensors of the hidden size (residual, norm, queries, keys, values, attention output) and
        three of the MLP's size (gate, up, their product), plus one token's logits. The logits are
        float32: each counts as two elements of a 16-bit dtype.
        """
        return tokens * (6 * self.hidden + 3 * self.intermediate) + 2 * self.vocabulary


def read_architecture(config: Mapping[str, Any]) -> Architecture | None:
    """Return the shape that a parsed `config.json` describes.

    Reads the text part of a multimodal model. Returns None if the number of layers, the hidden size
    or the number of heads is missing or invalid.
    """
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    text = {**_DEFAULTS.get(str(text.get("model_type")), {}), **text}
    hidden, heads = (_number(text, key) for key in ("hidden", "heads"))
    layers = _layers(text)
    if not layers or not hidden or not heads or layers > _MOST_LAYERS:
        return None
    kinds = _kinds(text, layers)
    return Architecture(
        layers=layers,
        hidden=hidden,
        intermediate=_number(text, "intermediate") or 4 * hidden,
        heads=heads,
        vocabulary=_whole(text.get("vocab_size")) or 0,
        context_length=_number(text, "context") or 0,
        caches=tuple(
            LayerCache(_width(text, hidden, heads, n, kind), _window(text, kind))
            for n, kind in enumerate(kinds)
        ),
    )


def _layers(text: Mapping[str, Any]) -> int | None:
    blocks = _whole(text.get("num_layers"))
    if blocks and text.get("model_type") == "longcat_flash":  # each block has two attention layers
        return 2 * blocks
    if layers := _number(text, "layers"):
        return layers
    named = text.get("hybrid_override_pattern") or text.get("layers_block_type")
    return len(named) if isinstance(named, str | list) else None


# ------------------------------------------------------------ how wide keys and values are


def _width(text: Mapping[str, Any], hidden: int, heads: int, number: int, kind: str) -> int:
    """Return the elements of one token's keys and values in layer `number`."""
    if (latent := _whole(text.get("kv_lora_rank"))) and "qk_rope_head_dim" in text:
        # Latent attention (DeepSeek-V2): transformers 5 caches the latent and the rotary key.
        return latent + (_whole(text.get("qk_rope_head_dim")) or 0) + _indexer(text, number)
    kind_of_model = text.get("model_type")
    kv_heads = _number(text, "kv_heads") or heads
    size = _whole(text.get("head_dim")) or hidden // heads
    if kind_of_model == "falcon":
        # Falcon's newer attention caches a copy of each key for each query head that shares it.
        new = text.get("new_decoder_architecture") is True
        kv_heads = heads if new else 1 if text.get("multi_query") is not False else kv_heads
    elif text.get("multi_query") is True:
        kv_heads = 1  # StarCoder: `multi_query` overrides the keys that give KV heads
    elif kind_of_model == "zamba2":  # attention reads hidden state and embedding, joined
        size = _whole(text.get("attention_head_dim")) or 2 * size
    elif kind_of_model == "gemma4_text" and kind == "full_attention":
        size = _whole(text.get("global_head_dim")) or size
        if text.get("attention_k_eq_v") is True:
            kv_heads = _whole(text.get("num_global_key_value_heads")) or kv_heads
    own = _mapping(_mapping(text.get("per_layer_config")).get(str(number)))
    kv_heads = _whole(own.get("num_key_value_heads")) or kv_heads
    size = _whole(own.get("head_dim")) or size
    values = size
    if kind_of_model == "mimo_v2_flash":
        values = _whole(text.get("v_head_dim")) or size
        if kind in _SLIDING:
            kv_heads *= 2
    return kv_heads * (size + values)


def _indexer(text: Mapping[str, Any], number: int) -> int:
    """Return the elements of one token's key in the indexer of layer `number`.

    An indexer selects the tokens to attend to (DeepSeek-V3.2). Returns 0 if the layer has no
    indexer, or if it uses the indexer of an earlier layer (GLM-5).
    """
    size = _whole(text.get("index_head_dim")) or 0
    kinds = text.get("indexer_types") or text.get("index_topk_pattern")
    if isinstance(kinds, str | list) and number < len(kinds):
        return 0 if kinds[number] in ("shared", "S") else size
    offset = text.get("index_skip_topk_offset")
    first = (offset if type(offset) is int else 2) - 1
    every = _whole(text.get("index_topk_freq")) or 1
    return size if max(number - first, 0) % every == 0 else 0


# ------------------------------------------------------------ which layers have a cache


def _kinds(text: Mapping[str, Any], layers: int) -> list[str]:
    """Return the kind of each layer, as transformers' `layer_types` names it."""
    named = text.get("layer_types")
    if not (isinstance(named, list) and len(named) == layers):
        named = _hybrid(text, layers) or _alternating(text, layers)
    kinds = [str(kind) for kind in named]
    if shared := _whole(text.get("num_kv_shared_layers")):
        # The last layers read the KV cache of earlier layers (Gemma 3n, Gemma 4).
        first = max(0, layers - shared)
        kinds[first:] = ["shared"] * (layers - first)
    for number in _numbers(text.get("cross_attention_layers")):
        if number < layers:
            kinds[number] = "cross_attention"  # without an image the layer caches nothing
    return kinds


def _hybrid(text: Mapping[str, Any], layers: int) -> list[str] | None:
    """Return the kind of each layer of a hybrid model; None for any other model.

    A hybrid model mixes kinds of layers. Each family of models has its own config key that says
    which layer is of which kind.
    """

    def attending(numbers: list[int] | range, others: str = "other") -> list[str]:
        return ["full_attention" if n in numbers else others for n in range(layers)]

    blocks = text.get("layers_block_type")
    if isinstance(blocks, list) and len(blocks) == layers:  # Zamba2; Nemotron-H of transformers 5
        return [str(block) for block in blocks]
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str) and len(pattern) == layers:  # Nemotron-H
        return attending([n for n, block in enumerate(pattern) if block == "*"])
    if text.get("model_type") == "minimax":  # transformers 5 ignores its `attn_type_list`
        return attending(range(0, layers, 2))
    linear = _mapping(text.get("linear_attn_config"))
    if "full_attn_layers" in linear:  # Kimi Linear counts from one
        return attending([n - 1 for n in _numbers(linear["full_attn_layers"])])
    if "attn_layer_indices" in text:  # Bamba
        return attending(_numbers(text["attn_layer_indices"]))
    if period := _whole(text.get("attn_layer_period")):  # Jamba
        first = text.get("attn_layer_offset")
        return attending(range(first if type(first) is int and first >= 0 else 0, layers, period))
    if interval := _whole(text.get("full_attention_interval")):  # Qwen3-Next
        return attending(range(interval - 1, layers, interval))
    if isinstance(cycle := text.get("block_types"), list) and cycle:  # RecurrentGemma
        names = {"attention": _SLIDING[0]}
        return [names.get(str(cycle[n % len(cycle)]), "other") for n in range(layers)]
    if text.get("model_type") == "llama4_text":
        flags = text.get("no_rope_layers")
        rope = flags if isinstance(flags, list) and len(flags) == layers else None
        return [
            "chunked_attention" if (rope[n] if rope else (n + 1) % 4) else "full_attention"
            for n in range(layers)
        ]
    if isinstance(flags := text.get("hybrid_layer_pattern"), list) and len(flags) == layers:
        return [_SLIDING[0] if flag == 1 else "full_attention" for flag in flags]  # MiMo
    if text.get("model_type") == "mimo_v2_flash":
        return attending([0, *range(5, layers, 6)], _SLIDING[0])
    return None


def _alternating(text: Mapping[str, Any], layers: int) -> list[str]:
    every = _ALTERNATING.get(str(text.get("model_type")))
    every = _whole(text.get("sliding_window_pattern")) or every
    sliding = _whole(text.get("sliding_window")) and text.get("use_sliding_window") is not False
    return [
        "full_attention" if not sliding or (every and (n + 1) % every == 0) else _SLIDING[0]
        for n in range(layers)
    ]


def _window(text: Mapping[str, Any], kind: str) -> int | None:
    """Return the maximum number of tokens that a layer of this kind caches; None for all.

    A layer with a sliding window or chunk of w tokens caches w − 1 tokens: the current token is one
    of the w. A layer without a KV cache has 0.
    """
    if kind in _SLIDING:
        found = _whole(text.get("sliding_window")) or _whole(text.get("attention_window_size"))
        if text.get("model_type") == "mimo_v2_flash":  # `sliding_window_size` is w − 1
            found = (_whole(text.get("sliding_window_size")) or (found or 0) - 1) + 1
        window = None if text.get("use_sliding_window") is False else found
        return window and window - 1
    if kind == "chunked_attention":
        chunk = _whole(text.get("attention_chunk_size"))
        return chunk and chunk - 1
    return None if kind in _GROWING else 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(value: Any) -> list[int]:
    found = value if isinstance(value, list) else []
    return [n for n in found if type(n) is int and 0 <= n < _MOST_LAYERS]


def _number(text: Mapping[str, Any], key: str) -> int | None:
    return next((n for name in _SPELLINGS[key] if (n := _whole(text.get(name)))), None)


def _whole(value: Any) -> int | None:
    """Return `value` if it is a positive integer below 2**40; None for any other value."""
    return value if type(value) is int and 0 < value < 2**40 else None
