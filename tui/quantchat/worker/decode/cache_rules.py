"""What the KV cache of a model allows, and when a prompt must be computed again from its start.

Most caches can be cut anywhere and continued with any number of tokens. Some recurrent models start
from an empty state whenever they get several tokens at once, and LongRoPE rotates every key by
other factors once a chat is longer than the model's original context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CacheRules:
    """The limits of a model's KV cache; the defaults fit ordinary models."""

    pieces: bool = True
    """Whether the cache can be continued with several tokens at a time."""
    switch: int = 0
    """Length in tokens beyond which the cached keys are wrong; 0 if there is no such length."""
    problem: str = ""
    """How the cache deviates from exact results, in words; empty if it is exact."""

    def continues(self, cached: int, total: int) -> bool:
        """Return whether tokens `cached` to `total` can be computed with the cache, in any pieces.

        Otherwise all `total` tokens are computed in one piece, with an empty cache.
        """
        return self.pieces and not (self.switch and cached <= self.switch < total)

    def keeps(self, cached: int, common: int, total: int) -> bool:
        """Return whether a prompt of `total` tokens can use the first `common` of `cached` ones."""
        return (
            common > 0
            and self.continues(common, total)
            and not (self.switch and common <= self.switch < cached)
        )

    def invalidated_at(self, cached: int) -> bool:
        """Return whether the next token makes the cache wrong."""
        return bool(self.switch) and cached == self.switch

    @property
    def note(self) -> str:
        """A note on the cache for the user; empty for an ordinary model."""
        parts = [self.problem] if self.problem else []
        if not self.pieces:
            parts.append(
                "its state cannot be continued by several tokens: each prompt is computed again, "
                "in one piece"
            )
        if self.switch:
            parts.append(
                f"LongRoPE: a chat that grows beyond {self.switch} tokens is computed again once, "
                "in one piece"
            )
        return "; ".join(parts)


ORDINARY = CacheRules()


def longrope_switch(config: Any) -> int:
    """Return the length in tokens above which `config` uses LongRoPE's long factors, or 0.

    `longrope_frequency_update` of transformers chooses the factors of a whole pass by its last
    position.
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
