"""The divergence of two answers, with the probabilities of both continuations.

At the divergence point each variant gives a probability to both answers' next tokens. Greedy
decoding chooses the most likely token, so a variant normally gives the higher probability to its
own token. There are exceptions, because the probabilities are computed afterwards in one forward
pass, whose rounding differs from that of decoding. If a variant's two probabilities are nearly
equal, rounding decided; otherwise the variants really differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quantchat.wire.codec import FORMERLY


@dataclass(frozen=True)
class Continuation:
    """One variant's next token at the divergence point. Probabilities are from 0 to 1."""

    variant: str
    """Label of the variant."""
    token: str
    """Text of the token; empty if the answer ends there."""
    own: float | None = None
    """Probability that the variant gives to this token; None if unknown."""
    other: float | None = None
    """Probability that the variant gives to the other answer's next token; None if unknown."""
    problem: str = ""
    """Why the probabilities are not known; empty if they are."""

    @property
    def is_partial_character(self) -> bool:
        """Whether the token is only part of a character, so that its text says nothing."""
        return "\ufffd" in self.token


@dataclass(frozen=True)
class DivergenceScore:
    """The divergence of the first two answers of a turn."""

    point: int
    """Index, from 0, of the first output token that differs."""
    continuations: list[Continuation] = field(metadata={FORMERLY: "ways"})
    """The continuations of the two answers, in the order of the answers."""
