"""How surprised one variant is by another's answer, token by token (teacher forcing).

Perplexity is exp of the mean negative log-likelihood of the answer's tokens, its end among them
where it ended by itself: 1 where each was certain. It is the answer's perplexity under a variant,
not that variant's perplexity on a text, and compares only variants with the same tokenizer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

LEVELS = (0.5, 0.1, 0.01)
"""Probabilities at or above which a token is expected, likely, unlikely; below it is a surprise."""


@dataclass(frozen=True)
class CrossPerplexity:
    """What the variant `by` thinks of an answer."""

    by: str
    logprobs: list[float] = field(default_factory=list)
    """Natural logarithms of the probability of each token, and last of the end if it ended."""
    problem: str = ""
    """Why they are not known, in words."""

    @property
    def perplexity(self) -> float | None:
        """Of the whole answer; None where it is not known, infinite where no number holds it."""
        if not self.logprobs:
            return None
        try:
            return math.exp(-math.fsum(self.logprobs) / len(self.logprobs))
        except OverflowError:
            return math.inf


def level(logprob: float) -> int:
    """0 for an expected token to 3 for a surprise."""
    return sum(logprob < math.log(bound) for bound in LEVELS)
