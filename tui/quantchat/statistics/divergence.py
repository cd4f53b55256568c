"""Where two answers part, and how likely each variant thought either way on.

A greedy answer says the likeliest token, so at the first difference each variant has its own ahead
of the other's: by how much tells a real difference from a tie that rounding decided.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quantchat.wire.codec import FORMERLY


@dataclass(frozen=True)
class Continuation:
    """How one variant goes on where the answers part. Probabilities are in 0…1."""

    variant: str
    token: str
    """Text of its token there; empty where its answer ends instead."""
    own: float | None = None
    """Its probability of that token, given the same answer so far; None where not known."""
    other: float | None = None
    """Its probability of the token with which the other one goes on."""
    problem: str = ""
    """Why the probabilities are not known, in words."""

    @property
    def in_character(self) -> bool:
        """Whether its token is part of a character: as text it is like any other such part."""
        return "\ufffd" in self.token


@dataclass(frozen=True)
class DivergenceScore:
    """The first output token, by its index from 0, at which two answers differ."""

    point: int
    continuations: list[Continuation] = field(metadata={FORMERLY: "ways"})
    """Of the first two answers, in their order."""
