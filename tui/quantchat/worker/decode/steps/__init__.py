"""Decode steps: several implementations of `Step`, which computes tokens after the cached ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Stopped = Callable[[], bool]
"""Returns whether to stop. It must be cheap, because it is called between the blocks of a model."""


class Interrupted(Exception):
    """Raised by a step that was stopped in the middle.

    `cache_intact`: whether the cache is as it was before the step; otherwise it is empty.
    """

    def __init__(self, *, cache_intact: bool) -> None:
        super().__init__("stopped in the middle of a step")
        self.cache_intact = cache_intact


class Step(Protocol):
    """A model with its KV cache."""

    name: str
    """The name of the decode mode, for `wire.variant.ModelInfo.decode`."""

    def run(self, tokens: Any, stopped: Stopped | None = None) -> Any:
        """Append `tokens`, ids of shape (1, n); return the last one's logits, (1, vocabulary).

        On a GPU the work is only queued. The logits are valid until the next call. `stopped` is
        given for long work on a CPU; once it returns True, Interrupted is raised between two blocks
        of the model.
        """

    def prepare(self, first: int, last: int) -> None:
        """Prepare for steps after which the cache has `first` to `last` tokens.

        The contents of the cache do not change. Slow work, such as allocating memory, is done here
        so that it does not delay a token.
        """

    def cut(self, tokens: int) -> bool:
        """Remove the last `tokens` from the cache; return False if that is not possible."""

    def forget(self) -> None:
        """Drop the KV cache and free its memory."""

    def kv_bytes(self) -> int:
        """Return the bytes allocated for the KV cache."""
