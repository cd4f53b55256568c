"""A KV cache in buffers that grow in steps, in place of one that is copied for each token."""

from __future__ import annotations

from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from quantchat.common.memory_rules import bucket


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, shape (1, heads, allocated tokens, head size).

    transformers' own dynamic layer copies all it holds to append a token. Here a token is written
    into its place, and attention sees a view of what is filled. With `slot` set, a tensor that
    holds the place of the next token, nothing depends on the length in Python any more: the token
    goes to `slot` and attention sees the first `window` places (None: all), which the caller masks.
    That is the form a compiled or captured step needs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: Any = None
        self.values: Any = None
        self.is_initialized = False
        self.length = 0
        self.slot: Any = None
        self.window: int | None = None

    def update(self, keys: Any, values: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Append `keys` and `values`, (1, heads, new tokens, head size); return all to look at."""
        if self.slot is not None:
            self.keys.index_copy_(2, self.slot, keys)
            self.values.index_copy_(2, self.slot, values)
            return self.keys[:, :, : self.window], self.values[:, :, : self.window]
        end = self.length + keys.shape[-2]
        if not self.is_initialized or end > self.keys.shape[-2]:
            self._grow(keys, values, end)
            self.is_initialized = True
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` in all; the buffers may move for it."""
        if tokens > self.keys.shape[-2]:
            self._grow(self.keys, self.values, tokens)

    def _grow(self, keys: Any, values: Any, tokens: int) -> None:
        """Hold `tokens` in buffers like `keys` and `values`: both, or none if memory is short."""
        grown = self._grown(self.keys, keys, tokens), self._grown(self.values, values, tokens)
        self.keys, self.values = grown

    def _grown(self, old: Any, like: Any, tokens: int) -> Any:
        batch, heads, _, size = like.shape
        # Zeros: a masked place is multiplied by 0, and what memory happens to hold may be NaN.
        new = like.new_zeros((batch, heads, bucket(tokens), size))
        if self.length:
            new[:, :, : self.length] = old[:, :, : self.length]
        return new

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` tokens; the buffers stay."""
        self.length += min(0, tokens_to_remove)


def growing_cache(config: Any) -> Any:
    """A cache for a model of `config`: layers with full attention grow in steps.

    Sliding windows and recurrent states keep transformers' own layers: they do not grow.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    if not cache.layers:  # a config that does not tell its layers
        cache.layer_class_to_replicate = GrowingLayer
    return cache
