"""Where two answers part, in words."""

from __future__ import annotations

from collections.abc import Sequence

from quantchat.snapshot.schema import AnswerRecord, TurnRecord
from quantchat.statistics.divergence import Continuation, DivergenceScore
from quantchat.text import one_line


def divergence_text(turn: TurnRecord) -> str:
    """`the answers part at token 24`, with each variant's probabilities where they are known."""
    if turn.divergence_point is None:
        return ""
    text = f"the answers part at token {turn.divergence_point + 1}"
    return text + (f": {_continuations(turn.divergence, turn.answers)}" if turn.divergence else "")


def _continuations(divergence: DivergenceScore, answers: Sequence[AnswerRecord]) -> str:
    ids = {answer.variant: answer.ids for answer in answers}
    names = [
        _name(way, ids.get(way.variant, [])[divergence.point :]) for way in divergence.continuations
    ]
    return "; ".join(
        f"{one_line(way.variant)} {own}"
        + (
            f" {way.own:.3f}, {other} {way.other:.3f}"
            if way.own is not None and way.other is not None
            else f", probability not known: {one_line(way.problem)}"
        )
        for way, own, other in zip(divergence.continuations, names, reversed(names), strict=True)
    )


def _name(way: Continuation, ids: Sequence[int]) -> str:
    """Of the first of `ids`, with which the answer goes on, if it does."""
    if not way.token:
        return "ends"
    if way.in_character and ids:
        return f"token {ids[0]}"
    return f"‘{one_line(way.token) or '␣'}’"
