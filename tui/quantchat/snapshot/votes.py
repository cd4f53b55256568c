"""The record of blind votes."""

from __future__ import annotations

from typing import Literal

from quantchat.snapshot.fields import Record, Text
from quantchat.statistics.votes import Tally, tally


class VoteRecord(Record):
    """One vote: the variant on each side, and the choice."""

    turn: int
    """Number of the turn."""
    left: Text
    """Label of the variant on the left."""
    right: Text
    """Label of the variant on the right."""
    choice: Literal["left", "right", "tie", "bad"]
    """`bad`: both answers were bad."""
    seen: bool = False
    """Whether the labels were visible before the choice, so that the vote was not blind."""


class VotingRecord(Record):
    """A session of blind votes on the turns that `votes` name."""

    seed: int
    """Seed of the random choice of the side on which each variant is shown."""
    paced: bool
    """True: both answers appeared at the speed of the slower one. False: they appeared when both
    were complete."""
    votes: list[VoteRecord]
    """The votes in the order of their turns."""


def tally_of(voting: VotingRecord, a: str) -> Tally:
    """Return the votes of one session; the wins of variant `a` come first."""
    return tally(((v.left, v.right, v.choice, v.seen) for v in voting.votes), a)
