"""What each variant thinks of each answer, in words."""

from __future__ import annotations

from quantchat.snapshot.schema import TurnRecord
from quantchat.statistics.surprisal import Surprise
from quantchat.text import one_line


def forced(turn: TurnRecord) -> str:
    """The perplexity of each answer under each variant; empty where they were not asked."""
    return "; ".join(
        f"perplexity of {one_line(answer.variant)}'s answer: "
        + ", ".join(_under(one, answer.variant) for one in answer.surprises)
        for answer in turn.answers
        if answer.surprises
    )


def _under(surprise: Surprise, author: str) -> str:
    who = "itself" if surprise.by == author else one_line(surprise.by)
    value = surprise.perplexity
    if value is None:
        return f"not known under {who} ({one_line(surprise.problem)})"
    return f"{value:.2f} under {who}"
