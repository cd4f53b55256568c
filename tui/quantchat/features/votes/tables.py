"""Blind votes as sentences, tables and JSON: who won, and whether that may be chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantchat.document.document import Block, Column, Table, paragraphs, table
from quantchat.document.figures import plural
from quantchat.snapshot.pooled_votes import PooledVotes, repeated
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.votes import tally_of
from quantchat.statistics.multiple import holm
from quantchat.statistics.votes import LEVEL, MOST_VOTES, POWER, Tally, sign_test
from quantchat.text import one_line

_CHOICES = {"tie": "tie", "bad": "both bad"}
"""Choice that names no side → the words that a table shows for it."""


def lines(a: str, b: str, votes: Tally, repeated: int = 0) -> list[str]:
    """Return the result of the votes on `a` and `b`, one sentence a line.

    `repeated` is the number of votes on a prompt that was voted on before.
    """
    a, b = one_line(a), one_line(b)
    counts = f"{a} {votes.a}, {b} {votes.b}, ties {votes.ties}, both bad {votes.bad}"
    sentences = [f"blind votes: {counts}"]
    if votes.seen:
        sentences.append(f"not counted: {plural(votes.seen, 'vote')} while the names were shown")
    if repeated:
        sentences.append(
            f"not independent: {plural(repeated, 'vote')} on a prompt that was voted on before; "
            "the test assumes independent votes, so p is too small and the interval too narrow"
        )
    test = sign_test(votes)
    if test is None:
        return [*sentences, "no vote is for a side: there is nothing to test"]
    sentences.append(
        f"{a} won {test.share:.0%} of the {votes.decided} votes for a side "
        f"(95 % interval {test.low:.0%} to {test.high:.0%}); exact sign test p = {_p(test.p)}"
    )
    if test.shown:
        return [*sentences, f"{a if votes.a > votes.b else b} is preferred"]
    sentences.append("no preference shown")
    if test.more is None:
        sentences.append(f"at this share even {MOST_VOTES} votes would hardly decide it")
    else:
        sentences.append(
            f"if the share stays the same, a decision (p < {LEVEL:g}) can be expected after about "
            f"{plural(test.more, 'more vote')} (power {POWER:.0%})"
        )
    return sentences


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def blocks(snapshot: Snapshot) -> list[Block]:
    """Return the result of one session, and a table of its votes (`votes_table`)."""
    return [*paragraphs(result(snapshot)), votes_table(snapshot)]


def result(snapshot: Snapshot) -> list[str]:
    """Return the result of one session, one sentence a line; empty if it has no votes."""
    if snapshot.voting is None:
        return []
    a, b = snapshot.shown
    return lines(a, b, tally_of(snapshot.voting, a), repeated([snapshot]))


def votes_table(snapshot: Snapshot) -> Table:
    """Return a table of the votes, with the variant that was on each side and the choice."""
    headings = [Column(name) for name in ("prompt", "left", "right", "chosen")]
    return table("Votes", headings, rows(snapshot))


def rows(snapshot: Snapshot) -> Iterator[tuple[str, str, str, str]]:
    """Yield the prompt, left label, right label and choice of each vote."""
    if snapshot.voting is None:
        return
    prompts = {turn.number: turn.prompt for turn in snapshot.turns}
    for vote in snapshot.voting.votes:
        sides = {"left": vote.left, "right": vote.right}
        chosen = _CHOICES.get(vote.choice) or one_line(sides.get(vote.choice, ""))
        yield (
            one_line(prompts.get(vote.turn, "–")),
            one_line(vote.left),
            one_line(vote.right),
            chosen + (" (names shown)" if vote.seen else ""),
        )


def pooled_blocks(pooled: PooledVotes) -> list[Block]:
    """Return a table of the sessions, and the result of all of them together."""
    title = f"{plural(len(pooled.sessions), 'session')} of blind votes"
    sessions = [
        map(str, (number, one.a, one.b, one.ties, one.bad))
        for number, one in enumerate(pooled.sessions, 1)
    ]
    return [
        table(title, ("session", pooled.a, pooled.b, "ties", "both bad"), sessions),
        *paragraphs(lines(pooled.a, pooled.b, pooled.total, pooled.repeated_votes)),
    ]


def pairs_blocks(sessions: Sequence[Snapshot]) -> list[Block]:
    """Return a table with a line for each of `sessions`, which compare different pairs of variants.

    p is that of the sign test, corrected by Holm's procedure for the number of pairs.
    """
    tallies = [tally_of(one.voting, one.shown[0]) for one in sessions if one.voting]
    tests = [sign_test(votes) for votes in tallies]
    corrected = iter(holm([test.p for test in tests if test]))
    rows = []
    for snapshot, votes, test in zip(sessions, tallies, tests, strict=True):
        a, b = map(one_line, snapshot.shown)
        adjusted = next(corrected) if test else 1.0
        preferred = (a if votes.a > votes.b else b) if adjusted < LEVEL else "not shown"
        p_values = (_p(test.p), _p(adjusted)) if test else ("–", "–")
        counts = map(str, (votes.a, votes.b, votes.ties, votes.bad))
        rows.append((f"{a}, {b}", *counts, *p_values, preferred))
    headings = ("pair", "first", "second", "ties", "both bad", "p", "p (Holm)", "preference")
    return [table("Blind votes of each pair", headings, rows)]


def json_document(result: PooledVotes) -> dict[str, object]:
    """Return the sessions and the sign test as JSON values."""
    test = sign_test(result.total)
    return {
        "a": result.a,
        "b": result.b,
        "sessions": [vars(one) for one in result.sessions],
        "total": vars(result.total),
        "repeated": result.repeated_votes,
        "sign_test": vars(test) if test else None,
    }
