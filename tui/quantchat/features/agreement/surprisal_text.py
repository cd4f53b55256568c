"""What each variant thinks of each answer, in words."""

from __future__ import annotations

from quantchat.snapshot.schema import TurnRecord
from quantchat.statistics.surprisal import CrossPerplexity
from quantchat.text import one_line


def cross_perplexity_text(turn: TurnRecord) -> str:
    """The perplexity of each answer under each variant; empty where they were not asked."""
    return "; ".join(
        f"perplexity of {one_line(answer.variant)}'s answer: "
        + ", ".join(_under(one, answer.variant) for one in answer.cross_perplexities)
        for answer in turn.answers
        if answer.cross_perplexities
    )


def _under(surprise: CrossPerplexity, author: str) -> str:
    who = "itself" if surprise.by == author else one_line(surprise.by)
    value = surprise.perplexity
    if value is None:
        return f"not known under {who} ({one_line(surprise.problem)})"
    return f"{value:.2f} under {who}"
