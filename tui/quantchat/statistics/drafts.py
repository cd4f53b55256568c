"""Figures of speculative decoding: a draft proposes tokens, and the model checks several at once.

Leviathan et al. 2023 (https://arxiv.org/abs/2211.17192). The terms and definitions are those of
vLLM's log and metrics.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Drafts:
    """The drafted tokens of one answer."""

    drafted: int
    """Tokens that the draft proposed."""
    accepted: int
    """Drafted tokens that the model accepted into the answer."""
    steps: int
    """Forward passes of the model. Each checked drafted tokens, or computed one token if nothing
    was drafted."""

    @classmethod
    def total(cls, parts: Iterable[Drafts]) -> Drafts:
        """Return the sums over `parts`."""
        found = list(parts)
        return cls(
            sum(one.drafted for one in found),
            sum(one.accepted for one in found),
            sum(one.steps for one in found),
        )

    @property
    def acceptance(self) -> float | None:
        """Draft acceptance: accepted ÷ drafted tokens, in percent; None if nothing was drafted."""
        return 100 * self.accepted / self.drafted if self.drafted > 0 else None

    @property
    def mean_length(self) -> float | None:
        """Mean acceptance length: output tokens per forward pass, 1 + accepted ÷ passes.

        The 1 is the token that the model itself adds. None if there was no pass.
        """
        return 1 + self.accepted / self.steps if self.steps > 0 else None
