"""The turns that a report shows: answers are split where they diverge, equal ones shown once."""

from __future__ import annotations

from collections.abc import Iterator

from quantchat.document.document import Answer, Turn
from quantchat.document.figures import ORDERS, number, thoughts
from quantchat.document.series import legend_label, letter, places, reported_turns
from quantchat.features.agreement.turn_text import cross_perplexity_text, divergence_text
from quantchat.report.snapshot import turn_name, turn_table
from quantchat.session.conversation import thinks_at
from quantchat.snapshot.schema import AnswerRecord, Snapshot, TurnRecord


def turns(snapshot: Snapshot) -> Iterator[Turn]:
    """Yield the turns that a report shows.

    A turn with the same prompt and answers as an earlier turn names this turn (`repeats`) instead
    of showing the answers again.
    """
    known = places(snapshot)
    first: dict[tuple[object, ...], str] = {}
    for turn in reported_turns(snapshot):
        title = turn_name(turn, snapshot.voting)
        texts = (turn.prompt, *((a.variant, a.thoughts, a.text, a.reason) for a in turn.answers))
        repeats = first.setdefault(texts, title) if any(a.text for a in turn.answers) else title
        agreement = (_agreement(turn), cross_perplexity_text(turn))
        yield Turn(
            title=title,
            speeds=_speeds(turn, known),
            agreement="; ".join(filter(None, agreement)),
            prompt=turn.prompt,
            figures=turn_table(turn),
            answers=() if repeats != title else _answers(turn, known),
            repeats="" if repeats == title else repeats,
        )


def _speeds(turn: TurnRecord, known: dict[str, int]) -> str:
    return " · ".join(
        f"{letter(known[a.variant])} {number(a.timing.decode_tok_s)} tok/s {ORDERS[a.order]}"
        for a in turn.answers
        if a.timing.decode_tok_s is not None
    )


def _agreement(turn: TurnRecord) -> str:
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


def _answers(turn: TurnRecord, known: dict[str, int]) -> tuple[Answer, ...]:
    return tuple(
        split(answer, known[answer.variant], turn.divergence_point if index < 2 else None)
        for index, answer in enumerate(turn.answers)
    )


def split(answer: AnswerRecord, place: int, point: int | None) -> Answer:
    """Return `answer` split at output token `point`.

    A token without text, such as the first bytes of a character, counts with the next token that
    has text. If the pieces of the answer do not add up to its text, the answer is not split.
    """
    who = legend_label(place, answer.variant)
    title = thoughts(answer.thought_tokens) if answer.thoughts else ""
    whole = Answer(place, who, answer.text, None, "", answer.thoughts, title)
    if point is None or point > len(answer.pieces):
        return whole
    if thinks_at(answer.thought_pieces, answer.pieces, point):
        return whole  # the variants diverge in their thoughts, before the answer begins
    before = "".join(answer.pieces[:point])
    differing = next((piece for piece in answer.pieces[point:] if piece), "")
    if not answer.text.startswith(before + differing):
        return whole
    after = answer.text[len(before) + len(differing) :]
    if not differing and after:  # the token's text came only at the end of the answer
        differing, after = after, ""
    return Answer(place, who, before, differing, after, answer.thoughts, title)
