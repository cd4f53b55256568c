"""Counts the blind votes of several snapshots together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantchat.errors import UserError
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.votes import tally_of
from quantchat.statistics.votes import Tally


@dataclass(frozen=True)
class PooledVotes:
    """Sessions of votes on the same two variants, counted together."""

    a: str
    b: str
    sessions: list[Tally]
    total: Tally
    repeated_votes: int
    """Number of votes on a prompt that was voted on before (see the function `repeated`)."""


def repeated(snapshots: Sequence[Snapshot]) -> int:
    """Return how many deciding votes are on a prompt that already had a deciding vote.

    A deciding vote is a blind vote for one of the two answers, not for a tie or "both bad". The
    sign test assumes independent votes, but repeated answers to a prompt are alike, or even equal
    if they are greedy.
    """
    prompts = [prompt for snapshot in snapshots for prompt in _decided(snapshot)]
    return len(prompts) - len(set(prompts))


def _decided(snapshot: Snapshot) -> Iterator[str]:
    prompts = {turn.number: turn.prompt for turn in snapshot.turns}
    for vote in snapshot.voting.votes if snapshot.voting else ():
        if vote.turn in prompts and not vote.seen and vote.choice in ("left", "right"):
            yield prompts[vote.turn]


def pool_votes(snapshots: Sequence[tuple[str, Snapshot]]) -> PooledVotes:
    """Count the sessions in `snapshots`, each with the name of its file, together.

    Raises UserError if a snapshot has no votes, if its votes are on other variants or on another
    checkpoint of a variant, or if a file is given twice: its votes would count double.
    """
    (first_file, first), *_ = snapshots
    a, b = first.shown
    sessions, seen = [], set[tuple[str, int, str]]()
    for file, snapshot in snapshots:
        if snapshot.voting is None:
            raise UserError("has no votes", where=file, hint="give only sessions of votes")
        if set(snapshot.shown) != {a, b}:
            raise UserError(
                f"has votes on other variants than {first_file}, which compares {a} and {b}",
                where=file,
            )
        for label in (a, b):
            if _checkpoint(snapshot, label) != _checkpoint(first, label):
                raise UserError(f"{label} is another checkpoint than in {first_file}", where=file)
        identity = (snapshot.created, snapshot.voting.seed, str(snapshot.voting.votes))
        if identity in seen:
            raise UserError("is given twice: its votes would count double", where=file)
        seen.add(identity)
        sessions.append(tally_of(snapshot.voting, a))
    again = repeated([snapshot for _, snapshot in snapshots])
    return PooledVotes(a, b, sessions, sum(sessions, Tally()), again)


def _checkpoint(snapshot: Snapshot, label: str) -> str:
    ran = (one.model_info for one in snapshot.variants if one.label == label)
    return next((found.checkpoint_hash for found in ran if found is not None), "")
