"""What the KV cache of a model can be used for, and what must be computed anew instead.

Most caches can be cut anywhere and continued by any number of tokens. Some recurrent models start
from an empty state whenever they are given several tokens at once, and LongRoPE turns every key by
other factors once a chat is longer than the model's original context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CacheRules:
    """What a loop must know of the cache; the defaults are those of an ordinary model."""

    pieces: bool = True
    """Whether tokens after what is cached may be computed several at a time."""
    switch: int = 0
    """Tokens after which what was cached before is wrong; 0: there is no such length."""
    problem: str = ""
    """What is not exact of the cache and could not be avoided, in words."""

    def continues(self, cached: int, total: int) -> bool:
        """Whether a prompt may go on from `cached` tokens to `total`, in pieces if that is long.

        Otherwise all `total` tokens are computed in one piece, after an empty cache.
        """
        return self.pieces and not (self.switch and cached <= self.switch < total)

    def keeps(self, cached: int, common: int, total: int) -> bool:
        """Whether the first `common` of `cached` tokens serve a prompt of `total` tokens."""
        return (
            common > 0
            and self.continues(common, total)
            and not (self.switch and common <= self.switch < cached)
        )

    def crosses(self, cached: int) -> bool:
        """Whether the next token makes what is cached wrong."""
        return bool(self.switch) and cached == self.switch

    @property
    def note(self) -> str:
        """What the user must know of it; empty for an ordinary model."""
        parts = [self.problem] if self.problem else []
        if not self.pieces:
            parts.append(
                "its state cannot be continued by several tokens: each prompt is computed anew, in "
                "one piece"
            )
        if self.switch:
            parts.append(
                f"LongRoPE: a chat that grows beyond {self.switch} tokens is computed anew once, "
                "in one piece"
            )
        return "; ".join(parts)


ORDINARY = CacheRules()


def longrope_switch(config: Any) -> int:
    """The length in tokens after which a model of `config` takes LongRoPE's long factors, or 0.

    `longrope_frequency_update` of transformers chooses them by the last position of a pass, for
    all positions of that pass.
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
