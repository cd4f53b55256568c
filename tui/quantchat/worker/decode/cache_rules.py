"""What the KV cache of a model allows, and when a prompt must be computed again from its start.

Most caches can be cut anywhere, and any number of tokens can be appended. There are two exceptions.
Some recurrent models start from an empty state whenever they get several tokens at once. LongRoPE
rotates every key by other factors once a chat is longer than the model's original context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CacheRules:
    """The limits of a model's KV cache; the defaults fit ordinary models."""

    appendable: bool = True
    """Whether several tokens at a time can be appended to a cache that is not empty."""
    longrope_limit: int = 0
    """Length in tokens beyond which the cached keys are wrong; 0 if there is no such length."""
    problem: str = ""
    """How results with the cache deviate from exact results; empty if they do not."""

    def can_append(self, cached: int, total: int) -> bool:
        """Return whether a cache of `cached` tokens can be extended to `total`, in any chunks.

        Otherwise all `total` tokens must be computed in one chunk, from an empty cache.
        """
        limit = self.longrope_limit
        return self.appendable and not (limit and cached <= limit < total)

    def can_reuse(self, cached: int, common: int, total: int) -> bool:
        """Return whether a prompt of `total` tokens can use the first `common` cached tokens.

        `cached` is the number of tokens in the cache.
        """
        limit = self.longrope_limit
        return (
            common > 0
            and self.can_append(common, total)
            and not (limit and common <= limit < cached)
        )

    def invalidated_at(self, cached: int) -> bool:
        """Return whether one more token makes the keys in a cache of `cached` tokens wrong."""
        return bool(self.longrope_limit) and cached == self.longrope_limit

    @property
    def note(self) -> str:
        """A note on the cache for the user; empty for an ordinary model."""
        parts = [self.problem] if self.problem else []
        if not self.appendable:
            parts.append(
                "several tokens at once cannot be appended to the model's state: each prompt is "
                "computed again from its start, in one chunk"
            )
        if self.longrope_limit:
            parts.append(
                f"LongRoPE: a chat that grows beyond {self.longrope_limit} tokens is computed "
                "again once from its start, in one chunk"
            )
        return "; ".join(parts)


ORDINARY = CacheRules()


def longrope_limit(config: Any) -> int:
    """Return the length in tokens above which `config` uses LongRoPE's long factors, or 0.

    transformers (`longrope_frequency_update`) chooses short or long factors for all positions of a
    forward pass by the last position.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    for one in nested or [rope]:
        if one.get("rope_type", one.get("type")) == "longrope":
            original = one.get("original_max_position_embeddings") or getattr(
                text, "original_max_position_embeddings", 0
            )
            return int(original or 0)
    return 0
