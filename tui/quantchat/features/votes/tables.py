"""Blind votes in words: who won, whether that may be chance, and what it would take to know."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from quantchat.document.figures import plural
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.votes import Pooled, counted, repeated
from quantchat.statistics.votes import LEVEL, MOST_VOTES, POWER, Tally, sign_test
from quantchat.text import one_line

_CHOICES = {"tie": "tie", "bad": "both bad"}


def lines(a: str, b: str, votes: Tally, repeated: int = 0) -> list[str]:
    """What the votes on `a` and `b` come to, a sentence a line.

    `repeated` of them are on a prompt that was voted on before.
    """
    a, b = one_line(a), one_line(b)
    counts = f"{a} {votes.a}, {b} {votes.b}, ties {votes.ties}, both bad {votes.bad}"
    told = [f"blind votes: {counts}"]
    if votes.seen:
        told.append(f"not counted: {votes.seen} given with the names shown")
    if repeated:
        told.append(
            f"not independent: {plural(repeated, 'vote')} on a prompt that was voted on before; "
            "the test takes each as new, so p is too small and the interval too narrow"
        )
    test = sign_test(votes)
    if test is None:
        return [*told, "no vote chose a side: there is nothing to test"]
    told.append(
        f"{a} won {test.share:.0%} of the {votes.decided} that chose a side "
        f"(95 % interval {test.low:.0%} to {test.high:.0%}); exact sign test p = {_p(test.p)}"
    )
    if test.shown:
        return [*told, f"{a if votes.a > votes.b else b} is preferred"]
    told.append("no preference shown")
    if test.more is None:
        told.append(f"at such a share even {MOST_VOTES} votes would hardly tell")
    else:
        told.append(
            f"if the share stays, an answer (p < {LEVEL:g}) can be expected after about "
            f"{plural(test.more, 'more vote')} (power {POWER:.0%})"
        )
    return told


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def render(snapshot: Snapshot) -> Group:
    """The result of one session, and each vote with who stood where."""
    return Group(*map(Text, result(snapshot)), table(snapshot))


def result(snapshot: Snapshot) -> list[str]:
    """What the votes of one session come to, a sentence a line; nothing where there were none."""
    if snapshot.voting is None:
        return []
    a, b = snapshot.shown
    return lines(a, b, counted(snapshot.voting, a), repeated([snapshot]))


def table(snapshot: Snapshot) -> Table:
    """Each vote with who stood where."""
    table = Table(title="Votes", title_justify="left")
    for head in ("prompt", "left", "right", "chosen"):
        table.add_column(head, overflow="fold")
    for row in rows(snapshot):
        table.add_row(*map(Text, row))
    return table


def rows(snapshot: Snapshot) -> Iterator[tuple[str, str, str, str]]:
    """Each vote: prompt, left, right, what was chosen."""
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


def render_pooled(result: Pooled) -> Group:
    """Sessions one by one, and together."""
    title = f"{plural(len(result.sessions), 'session')} of blind votes"
    table = Table(title=title, title_justify="left")
    for head in ("session", one_line(result.a), one_line(result.b), "ties", "both bad"):
        table.add_column(Text(head), justify="left" if head == "session" else "right")
    for number, one in enumerate(result.sessions, 1):
        table.add_row(str(number), *map(str, (one.a, one.b, one.ties, one.bad)))
    told = lines(result.a, result.b, result.total, result.repeated)
    return Group(table, *map(Text, told))


def document(result: Pooled) -> dict[str, object]:
    """The same for programs."""
    test = sign_test(result.total)
    return {
        "a": result.a,
        "b": result.b,
        "sessions": [vars(one) for one in result.sessions],
        "total": vars(result.total),
        "repeated": result.repeated,
        "sign_test": vars(test) if test else None,
    }
