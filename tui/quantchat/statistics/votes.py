"""Blind votes: who won, whether it may be chance, and how many more votes are needed.

The test is the exact sign test (Dixon and Mood 1946, "The Statistical Sign Test"): of the votes
that chose a side, is the share of one side other than one half? Ties and "both bad" choose none,
so they are left out of it and told beside it. The interval of the share is Clopper's and Pearson's
(1934), exact too, hence wide with few votes.

The votes still wanted are those at which the test would find a share like the present one four
times out of five (power 0.8, two-sided at 0.05). The power of an exact test saws up and down with
the number of votes (Chernick and Liu 2002); it is the first number that reaches it. A share seen
in a few votes is itself uncertain, so this is an expectation and no promise. And votes must not be
added until the test likes them: decide beforehand how many there will be.
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
"""If even this many votes would not suffice, no number is given."""


@dataclass(frozen=True)
class Tally:
    """Votes by choice. `seen` are votes after the names were shown; they are not counted."""

    a: int = 0
    b: int = 0
    ties: int = 0
    bad: int = 0
    seen: int = 0

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
        """Number of counted votes, including ties and both bad."""
        return self.decided + self.ties + self.bad


@dataclass(frozen=True)
class SignTest:
    """The result: A's share of the votes for a side."""

    share: float
    low: float
    high: float
    """95 % interval of the share."""
    p: float
    """Probability of a result at least as one-sided if neither were better."""
    more: int | None
    """Further votes after which an answer could be expected, ties counted in; 0 where there is
    one, None where even `MOST_VOTES` would not do."""

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
    """The exact test of `votes`; None where none chose a side."""
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
    wanted = votes_wanted(votes.a / votes.decided)
    if wanted is None:
        return None
    missing = max(1, wanted - votes.decided)
    return math.ceil(missing * votes.blind / votes.decided)  # as many ties among them as until now


def votes_wanted(share: float) -> int | None:
    """Fewest decided votes at which the test has `POWER` if one side wins `share` of them.

    None where `MOST_VOTES` do not suffice, as for a share of one half.
    """
    import numpy as np
    from scipy.stats import binom

    counts = np.arange(1, MOST_VOTES + 1)
    # Most wins of the rarer side at which p is still below the level: P(X <= c) <= level / 2.
    most = binom.ppf(LEVEL / 2, counts, 0.5)
    most = np.where(binom.cdf(most, counts, 0.5) > LEVEL / 2, most - 1, most)
    power = binom.cdf(most, counts, share) + binom.sf(counts - most - 1, counts, share)
    enough = np.flatnonzero((most >= 0) & (power >= POWER))
    return int(counts[enough[0]]) if len(enough) else None
