"""A decode step for the Llama family that runs the kernels with little Python code between them.

It computes the same sums in the same order and dtypes as the modules of transformers (version
5.24). Query, key and value are computed as one product, gate and up as another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional

from quantchat.common.memory_rules import bucket
from quantchat.worker.decode.cpu.kernels import Product, adapted, product
from quantchat.worker.decode.steps import Interrupted, Stopped

_FAMILY = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")

_FIXED_ROPES = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles depend on the position, and not on the length of the text."""


class _Block(NamedTuple):
    """The norm weights and the linear products of one decoder block."""

    before: Any
    """Weight of the norm before the attention."""
    qkv: Product
    output: Product
    after: Any
    """Weight of the norm before the MLP."""
    gate_up: Product
    down: Product


class LlamaStep:
    """A step through a model of the Llama family on the CPU. Built by `llama_step`."""

    name = "eager, fused Llama steps"

    def __init__(self, model: Any, blocks: list[_Block], head: Product) -> None:
        config = model.config
        self._model = model
        self._blocks = blocks
        self._head = head
        self._embedding = model.model.embed_tokens.weight
        self._norm = model.model.norm.weight
        self._epsilon = config.rms_norm_eps
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._head_size = model.model.layers[0].self_attn.head_dim
        self._mlp_width = config.intermediate_size
        self._capacity = self._length = 0
        self._keys: list[Any] = []
        self._values: list[Any] = []
        self._cos: Any = None
        self._sin: Any = None

    # ------------------------------------------------------------ the interface of a Step

    def run(self, tokens: Any, stopped: Stopped | None = None) -> Any:
        """Append `tokens`, ids of shape (1, n); return the last one's logits, (1, vocabulary)."""
        with torch.inference_mode():
            return self._run(tokens[0], stopped)

    def prepare(self, first: int, last: int) -> None:
        """Do nothing: no length needs preparation."""

    def cut(self, tokens: int) -> bool:
        """Remove the last `tokens` from the cache and return True; the buffers stay."""
        self._length -= tokens
        return True

    def forget(self) -> None:
        """Drop the KV cache and free its memory."""
        self._capacity = self._length = 0
        self._keys, self._values = [], []

    def kv_bytes(self) -> int:
        """Return the bytes allocated for the KV cache."""
        return sum(t.numel() * t.element_size() for t in [*self._keys, *self._values])

    # ------------------------------------------------------------ the step

    def _run(self, ids: Any, stopped: Stopped | None) -> Any:
        count, start = len(ids), self._length
        end = start + count
        if end > self._capacity:
            self._grow(end)
        cos, sin = self._cos[start:end], self._sin[start:end]
        attend = self._attend_one if count == 1 else self._attend_many
        rotated_heads = self._heads + self._kv_heads
        x = functional.embedding(ids, self._embedding)
        for block, keys, values in zip(self._blocks, self._keys, self._values, strict=True):
            if stopped is not None and stopped():
                raise Interrupted(cache_intact=True)  # cache entries beyond `_length` are not read
            qkv = block.qkv(self._normed(x, block.before))
            qkv = qkv.view(count, rotated_heads + self._kv_heads, self._head_size)
            rotated = qkv[:, :rotated_heads]
            rotated = rotated * cos + torch.roll(rotated, self._head_size // 2, -1) * sin
            keys[0, :, start:end] = rotated[:, self._heads :].transpose(0, 1)
            values[0, :, start:end] = qkv[:, rotated_heads:].transpose(0, 1)
            seen = attend(rotated[:, : self._heads], keys[:, :, :end], values[:, :, :end])
            x = x + block.output(seen)
            gate_up = block.gate_up(self._normed(x, block.after))
            gate, up = gate_up[:, : self._mlp_width], gate_up[:, self._mlp_width :]
            x = x + block.down(functional.silu(gate) * up)
        self._length = end
        return self._head(self._normed(x[-1:], self._norm))

    def _normed(self, x: Any, weight: Any) -> Any:
        """Return the RMSNorm of `x`: in float32, rounded before the product with `weight`.

        transformers rounds at the same point.
        """
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self._epsilon)
        return weight * wide.to(x.dtype)

    def _attend_one(self, query: Any, keys: Any, values: Any) -> Any:
        # Query heads that share a key head become rows of one head, so that no key is copied.
        rows = query.reshape(1, self._kv_heads, -1, self._head_size)
        return functional.scaled_dot_product_attention(rows, keys, values).reshape(1, -1)

    def _attend_many(self, query: Any, keys: Any, values: Any) -> Any:
        count, end = query.shape[0], keys.shape[2]
        mask = None
        if count < end:
            mask = torch.ones(count, end, dtype=torch.bool).tril(end - count)
        seen = functional.scaled_dot_product_attention(
            query.transpose(0, 1).unsqueeze(0),
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=self._heads != self._kv_heads,
        )
        return seen[0].transpose(0, 1).reshape(count, -1)

    def _grow(self, tokens: int) -> None:
        capacity = bucket(tokens)
        shape = (1, self._kv_heads, capacity, self._head_size)
        for buffers in (self._keys, self._values):
            grown = [self._embedding.new_zeros(shape) for _ in self._blocks]
            for new, old in zip(grown, buffers, strict=False):
                new[:, :, : self._length] = old[:, :, : self._length]
            buffers[:] = grown
        # The angles are the same for all layers and steps. The sine includes the rotation's sign.
        cos, sin = self._model.model.rotary_emb(self._embedding, torch.arange(capacity)[None])
        half = self._head_size // 2
        self._cos = cos[0, :, None].contiguous()
        self._sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)[:, None].contiguous()
        self._capacity = capacity


def llama_step(model: Any, kind: type[LlamaStep] = LlamaStep) -> LlamaStep | None:
    """Return the step for `model`, or None for another kind of model. Check the step before use."""
    if not _known(model):
        return None
    inner = model.model
    blocks = []
    for layer in inner.layers:
        attention, feed = layer.self_attn, layer.mlp
        products = [
            product([attention.q_proj, attention.k_proj, attention.v_proj])
            or _separately([attention.q_proj, attention.k_proj, attention.v_proj]),
            product([attention.o_proj]),
            product([feed.gate_proj, feed.up_proj]) or _separately([feed.gate_proj, feed.up_proj]),
            product([feed.down_proj]),
        ]
        if any(found is None for found in products):
            return None
        qkv, output, gate_up, down = products
        before, after = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        blocks.append(_Block(before, qkv, output, after, gate_up, down))  # type: ignore[arg-type]
    head = product([model.lm_head])
    return None if head is None else kind(model, blocks, head)


def _separately(layers: list[Any]) -> Product | None:
    """Return a product that calls `layers` one by one, for weights that cannot be joined."""
    parts = [product([layer]) for layer in layers]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    return lambda rows: torch.cat([part(rows) for part in found], dim=-1)


def _known(model: Any) -> bool:
    """Return whether `LlamaStep` computes all parts of `model`, and `model` is on the CPU."""
    config = model.config
    if type(model).__name__ not in _FAMILY or model.device.type != "cpu":
        return False
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    attention = model.model.layers[0].self_attn
    size = getattr(attention, "head_dim", 0)
    return (
        not any(map(adapted, model.modules()))  # the embedding and the head among them
        and config._attn_implementation == "sdpa"
        and config.hidden_act == "silu"
        and rope.get("rope_type", "default") in _FIXED_ROPES
        and kinds == {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and size % 2 == 0
        and attention.scaling == size**-0.5
        and not hasattr(attention, "q_norm")
    )
