"""Cross-perplexity: the perplexity of one variant's answer under another variant.

Perplexity is exp of the mean negative log-likelihood of the answer's tokens, including the
end-of-sequence token if the answer ended by itself; it is 1 if each token was certain. It says
how well the variant predicts this one answer, not how good the variant is, and is comparable only
for variants with the same tokenizer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

LEVELS = (0.5, 0.1, 0.01)
"""Probabilities that separate the four surprisal levels: a token of level 0 (expected) has at least
0.5, a token of level 3 (very unlikely) has less than 0.01."""


@dataclass(frozen=True)
class CrossPerplexity:
    """The scores of an answer under the variant `by`."""

    by: str
    """Label of the variant that scored the answer."""
    logprobs: list[float] = field(default_factory=list)
    """Natural logarithm of the probability of each token, and of the end-of-sequence token."""
    problem: str = ""
    """Why the logprobs are not known; empty if they are."""

    @property
    def perplexity(self) -> float | None:
        """Perplexity of the whole answer; None if unknown, infinite if it overflows a float."""
        if not self.logprobs:
            return None
        try:
            return math.exp(-math.fsum(self.logprobs) / len(self.logprobs))
        except OverflowError:
            return math.inf


def level(logprob: float) -> int:
    """Return the surprisal level of a token: 0 (expected) to 3 (very unlikely)."""
    return sum(logprob < math.log(bound) for bound in LEVELS)
