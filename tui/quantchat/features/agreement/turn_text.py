"""One-line texts on how two answers of a turn agree: where they diverge, cross-perplexities."""

from __future__ import annotations

from collections.abc import Sequence

from quantchat.snapshot.schema import AnswerRecord, TurnRecord
from quantchat.statistics.divergence import Continuation, DivergenceScore
from quantchat.statistics.surprisal import CrossPerplexity
from quantchat.text import one_line


def divergence_text(turn: TurnRecord) -> str:
    """Return `the answers diverge at token 24`, with each variant's probabilities if known.

    The text is empty if the answers do not diverge.
    """
    if turn.divergence_point is None:
        return ""
    text = f"the answers diverge at token {turn.divergence_point + 1}"
    return text + (f": {_continuations(turn.divergence, turn.answers)}" if turn.divergence else "")


def _continuations(divergence: DivergenceScore, answers: Sequence[AnswerRecord]) -> str:
    ids = {answer.variant: answer.ids for answer in answers}
    sides = divergence.continuations
    names = [_name(side, ids.get(side.variant, [])[divergence.point :]) for side in sides]
    return "; ".join(
        f"{one_line(side.variant)} {token}"
        + (
            f" {side.own:.3f}, {other_token} {side.other:.3f}"
            if side.own is not None and side.other is not None
            else f", probability not known: {one_line(side.problem)}"
        )
        for side, token, other_token in zip(sides, names, reversed(names), strict=True)
    )


def _name(side: Continuation, ids: Sequence[int]) -> str:
    """Return the text of the token with which an answer continues after the common beginning.

    Returns `token N` with the first of `ids` if the token is only a part of a character, and `ends`
    if the answer ends there.
    """
    if not side.token:
        return "ends"
    if side.is_partial_character and ids:
        return f"token {ids[0]}"
    return f"‘{one_line(side.token) or '␣'}’"


def cross_perplexity_text(turn: TurnRecord) -> str:
    """Return the perplexity of each answer under each variant; empty if it was not measured."""
    return "; ".join(
        f"perplexity of {one_line(answer.variant)}'s answer: "
        + ", ".join(_under(measured, answer.variant) for measured in answer.cross_perplexities)
        for answer in turn.answers
        if answer.cross_perplexities
    )


def _under(measured: CrossPerplexity, author: str) -> str:
    who = "itself" if measured.by == author else one_line(measured.by)
    value = measured.perplexity
    if value is None:
        return f"not known under {who} ({one_line(measured.problem)})"
    return f"{value:.2f} under {who}"
