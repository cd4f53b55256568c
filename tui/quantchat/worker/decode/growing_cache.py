"""A KV cache in buffers that grow by many tokens at a time, so that appending seldom copies it."""

from __future__ import annotations

from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from quantchat.common.memory_rules import bucket


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, shape (1, heads, allocated tokens, head size).

    transformers' dynamic layer copies its contents to append a token. This layer writes the token
    into its buffers, and attention sees a view of the filled part.

    A decode step that is compiled, or captured in a CUDA graph, must not depend on a length in
    Python. Such a step sets `place` to a tensor with the index of the next token. Then the token is
    written at that index, attention sees the first `window` tokens of the buffers (None: all), and
    the step must mask those that are not filled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: Any = None
        self.values: Any = None
        self.is_initialized = False
        self.length = 0
        self.place: Any = None
        self.window: int | None = None

    def update(self, keys: Any, values: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Append `keys` and `values`, (1, heads, new tokens, head size); return all cached ones."""
        if self.place is not None:
            self.keys.index_copy_(2, self.place, keys)
            self.values.index_copy_(2, self.place, values)
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
        """Make room for `tokens`, including those already cached; the buffers may move."""
        if tokens > self.keys.shape[-2]:
            self._grow(self.keys, self.values, tokens)

    def _grow(self, keys: Any, values: Any, tokens: int) -> None:
        """Allocate buffers for `tokens`; if memory is short, change neither keys nor values."""
        grown = self._grown(self.keys, keys, tokens), self._grown(self.values, values, tokens)
        self.keys, self.values = grown

    def _grown(self, old: Any, like: Any, tokens: int) -> Any:
        batch, heads, _, size = like.shape
        # Zeros, because masked positions are multiplied by 0, and uninitialised memory may contain
        # NaN, which stays NaN.
        new = like.new_zeros((batch, heads, bucket(tokens), size))
        if self.length:
            new[:, :, : self.length] = old[:, :, : self.length]
        return new

    def get_seq_length(self) -> int:
        """Return the number of cached tokens."""
        return self.length

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last `-tokens_to_remove` tokens; the buffers stay.

        `tokens_to_remove` is negative, as in transformers.
        """
        self.length += min(0, tokens_to_remove)


def growing_cache(config: Any) -> Any:
    """Return a cache for a model of `config` with a `GrowingLayer` for each full-attention layer.

    For sliding windows and recurrent states it has transformers' own layers: their size is fixed.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    if not cache.layers:  # a config that does not list its layers
        cache.layer_class_to_replicate = GrowingLayer
    return cache
