"""Blind votes: who won, whether it may be chance, and how many more votes are needed.

The sides are the two variants A and B. The test is the exact sign test (Dixon and Mood 1946, "The
Statistical Sign Test"): among the votes for a side, does the share of one side differ from one
half? Ties and "both bad" are for no side, so the test leaves them out, and they are reported
separately. The interval of the share is that of Clopper and Pearson (1934), which is exact too, and
therefore wide with few votes.

The number of votes needed is the number at which the test would detect a share like the present one
four times out of five (power 0.8, two-sided at 0.05). The power of an exact test rises and falls as
votes are added (Chernick and Liu 2002); the number is the first with a power of at least 0.8. A
share from a few votes is itself uncertain, so the number is only an expectation. Decide beforehand
how many votes there will be; do not go on voting until the test shows a difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Choice = Literal["left", "right", "tie", "bad"]

LEVEL = 0.05
POWER = 0.8
MOST_VOTES = 10_000
"""Largest number of votes to suggest; if more would be needed, no number is suggested."""


@dataclass(frozen=True)
class Tally:
    """Numbers of votes by choice; `a` and `b` are the votes for A and for B."""

    a: int = 0
    b: int = 0
    ties: int = 0
    bad: int = 0
    """Votes that both answers are bad."""
    seen: int = 0
    """Votes after the variants' labels were shown. They do not count, whatever was chosen."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.a + other.a,
            self.b + other.b,
            self.ties + other.ties,
            self.bad + other.bad,
            self.seen + other.seen,
        )

    @property
    def decided(self) -> int:
        """Number of votes for a side."""
        return self.a + self.b

    @property
    def blind(self) -> int:
        """Number of votes that count, including ties and "both bad"."""
        return self.decided + self.ties + self.bad


@dataclass(frozen=True)
class SignTest:
    """The result of the sign test on A's share of the votes for a side."""

    share: float
    """Votes for A ÷ votes for a side."""
    low: float
    high: float
    """The ends `low` and `high` of the 95 % interval of the share."""
    p: float
    """p-value: probability of a result at least as one-sided if neither variant were better."""
    more: int | None
    """Number of further votes, ties included, after which a difference should be shown. 0 if it is
    already shown, None if even `MOST_VOTES` would not suffice."""

    @property
    def shown(self) -> bool:
        """Whether a difference is shown."""
        return self.p < LEVEL


def tally(votes: Iterable[tuple[str, str, Choice, bool]], a: str) -> Tally:
    """Count votes `(left, right, choice, seen)`; `a` is the label whose wins are `Tally.a`."""
    counts = {"a": 0, "b": 0, "ties": 0, "bad": 0, "seen": 0}
    for left, right, choice, seen in votes:
        if seen:
            counts["seen"] += 1
        elif choice in ("tie", "bad"):
            counts["ties" if choice == "tie" else "bad"] += 1
        else:
            counts["a" if (left if choice == "left" else right) == a else "b"] += 1
    return Tally(**counts)


def sign_test(votes: Tally) -> SignTest | None:
    """Return the exact sign test of `votes`; None if there are no votes for a side."""
    if not votes.decided:
        return None
    from scipy.stats import binomtest

    found = binomtest(votes.a, votes.decided)
    interval = found.proportion_ci(1 - LEVEL, method="exact")
    p = float(found.pvalue)
    return SignTest(
        share=votes.a / votes.decided,
        low=float(interval.low),
        high=float(interval.high),
        p=p,
        more=0 if p < LEVEL else _more(votes),
    )


def _more(votes: Tally) -> int | None:
    needed = votes_needed(votes.a / votes.decided)
    if needed is None:
        return None
    missing = max(1, needed - votes.decided)
    return math.ceil(missing * votes.blind / votes.decided)  # if the share of ties stays the same


def votes_needed(share: float) -> int | None:
    """Return the fewest votes for a side that give the test `POWER` if a side wins `share` of them.

    None if `MOST_VOTES` do not suffice; for a share of one half no number does.
    """
    import numpy as np
    from scipy.stats import binom

    counts = np.arange(1, MOST_VOTES + 1)
    # For each number of votes: the most votes for the losing side with which p is at most LEVEL,
    # that is, the largest c with P(X <= c) <= LEVEL / 2.
    most = binom.ppf(LEVEL / 2, counts, 0.5)
    most = np.where(binom.cdf(most, counts, 0.5) > LEVEL / 2, most - 1, most)
    power = binom.cdf(most, counts, share) + binom.sf(counts - most - 1, counts, share)
    enough = np.flatnonzero((most >= 0) & (power >= POWER))
    return int(counts[enough[0]]) if len(enough) else None
