"""The answers to one prompt, cut where they part, and what is said above them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quantchat.document.figures import ORDERS, number, thoughts
from quantchat.document.series import letter, named, places, reported_turns
from quantchat.features.agreement.divergence_text import divergence_text
from quantchat.features.agreement.surprisal_text import cross_perplexity_text
from quantchat.report.page_tables import Grid, grid
from quantchat.report.turns import name, turn_table
from quantchat.session.conversation import thinks_at
from quantchat.snapshot.schema import AnswerRecord, Snapshot, TurnRecord
from quantchat.text import neutralise


@dataclass(frozen=True)
class Said:
    """One answer as neutral text: what both said, the token it parts with, and the rest."""

    place: int
    who: str
    before: str
    differing: str | None
    """None where it does not part; empty where it ends while the other goes on."""
    after: str
    thoughts: str = ""
    """What the model thought first, and `thinking`, what stands above it."""
    thinking: str = ""


@dataclass(frozen=True)
class ToldTurn:
    """One prompt and its answers."""

    title: str
    speeds: str
    agreement: str
    """Where the answers part, or that they do not; empty where there are no two."""
    prompt: str
    figures: Grid
    answers: list[Said]
    repeats: str
    """Which turn had the same prompt and the same answers, word for word; `answers` is empty."""


def turns(snapshot: Snapshot) -> list[ToldTurn]:
    """The turns a report tells of, each set of answers once."""
    return list(_turns(snapshot))


def _turns(snapshot: Snapshot) -> Iterator[ToldTurn]:
    known = places(snapshot)
    first: dict[tuple[object, ...], str] = {}
    for turn in reported_turns(snapshot):
        title = name(turn, snapshot.voting)
        said = (turn.prompt, *((a.variant, a.thoughts, a.text, a.reason) for a in turn.answers))
        repeats = first.setdefault(said, title) if any(a.text for a in turn.answers) else title
        yield ToldTurn(
            title=title,
            speeds=_speeds(turn, known),
            agreement="; ".join(
                filter(None, (_divergence_words(turn), cross_perplexity_text(turn)))
            ),
            prompt=neutralise(turn.prompt),
            figures=grid(turn_table(turn), ""),
            answers=[] if repeats != title else _said(turn, known),
            repeats="" if repeats == title else repeats,
        )


def _speeds(turn: TurnRecord, known: dict[str, int]) -> str:
    return " · ".join(
        f"{letter(known[a.variant])} {number(a.timing.decode_tok_s)} tok/s {ORDERS[a.order]}"
        for a in turn.answers
        if a.timing.decode_tok_s is not None
    )


def _divergence_words(turn: TurnRecord) -> str:
    if turn.divergence_point is not None:
        return divergence_text(turn)
    if len(turn.answers) < 2 or not (turn.answers[0].ids and turn.answers[1].ids):
        return ""
    first, second = turn.answers[:2]
    if first.ids == second.ids:
        return "the same answer"
    shorter = min(len(first.ids), len(second.ids))
    if first.ids[:shorter] == second.ids[:shorter]:
        return "no difference so far"
    return "the tokenizers differ, so that tokens cannot be compared"


def _said(turn: TurnRecord, known: dict[str, int]) -> list[Said]:
    return [
        cut(answer, known[answer.variant], turn.divergence_point if index < 2 else None)
        for index, answer in enumerate(turn.answers)
    ]


def cut(answer: AnswerRecord, place: int, point: int | None) -> Said:
    """Cut `answer` at output token `point`.

    A token that makes no text final, as the first bytes of a character do not, parts with the next
    one that does. Nothing is cut where the pieces are not the text.
    """
    who = named(place, answer.variant)
    thinking = thoughts(answer.thought_tokens) if answer.thoughts else ""
    thought = neutralise(answer.thoughts)
    whole = Said(place, who, neutralise(answer.text), None, "", thought, thinking)
    if point is None or point > len(answer.pieces):
        return whole
    if thinks_at(answer.thought_pieces, answer.pieces, point):
        return whole  # they part before the answer begins
    before = "".join(answer.pieces[:point])
    differing = next((piece for piece in answer.pieces[point:] if piece), "")
    if not answer.text.startswith(before + differing):
        return whole
    after = answer.text[len(before) + len(differing) :]
    if not differing and after:  # held back to the end, as an unfinished character is
        differing, after = after, ""
    before, differing, after = (neutralise(part) for part in (before, differing, after))
    return Said(place, who, before, differing, after, thought, thinking)
