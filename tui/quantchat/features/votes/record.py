"""Make a snapshot from a session of blind votes."""

from __future__ import annotations

from quantchat.features.votes.voting import Voting
from quantchat.session.recorder import RecordedTurn, record
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.votes import VoteRecord, VotingRecord
from quantchat.system.sampler import DeviceSampler


def record_voting(voting: Voting, sampler: DeviceSampler | None = None) -> Snapshot:
    """Return a snapshot of the comparison with the turns and votes so far."""
    return record(
        voting.comparison,
        sampler,
        more=[RecordedTurn(ballot.turn) for ballot in voting.voted],
        voting=_voting(voting),
    )


def _voting(voting: Voting) -> VotingRecord:
    # `record` numbers the turns of the votes after those of the chat.
    first = len(voting.comparison.conversation.turns) + 1
    votes = [
        VoteRecord(
            turn=number,
            left=ballot.left,
            right=ballot.right,
            choice=ballot.choice,
            seen=ballot.seen,
        )
        for number, ballot in enumerate(voting.voted, start=first)
        if ballot.choice is not None
    ]
    return VotingRecord(seed=voting.plan.seed, paced=voting.paced, votes=votes)
