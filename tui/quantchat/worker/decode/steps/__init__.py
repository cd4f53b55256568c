"""Steps: each runs tokens through the model after what is cached, in its own way.

All of them keep the same promise, so that the loop above them, and the tests, know only this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Stopped = Callable[[], bool]
"""Whether to stop. Cheap: asked between any two blocks of a model."""


class Interrupted(Exception):
    """A step was stopped in the middle.

    `kept` tells that the cache is as it was before; else it is empty.
    """

    def __init__(self, *, kept: bool) -> None:
        super().__init__("stopped in the middle of a step")
        self.kept = kept


class Step(Protocol):
    """A model with its KV cache."""

    name: str
    """What `Resolved.decode` says of it."""

    def run(self, tokens: Any, stopped: Stopped | None = None) -> Any:
        """Append `tokens`, ids of shape (1, n); return the last one's logits, (1, vocabulary).

        On a GPU the work is only queued. The logits hold until the next call. With `stopped`, for
        long work on a CPU, raises Interrupted between two blocks where it says so.
        """

    def prepare(self, first: int, last: int) -> None:
        """Make ahead what steps need that have `first` to `last` tokens in the cache after them.

        What is cached stays. For what takes long, so that no token of an answer waits for it.
        """

    def cut(self, tokens: int) -> bool:
        """Take the last `tokens` off the cache; False, and nothing done, where it cannot be."""

    def forget(self) -> None:
        """Drop the KV cache and give its memory back."""

    def kv_bytes(self) -> int:
        """Bytes allocated for the KV cache."""
