"""Continue the chat of a saved or recovered snapshot."""

from __future__ import annotations

from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Answer, AnswerState, Turn
from quantchat.snapshot.schema import AnswerRecord, Snapshot, TurnRecord, VariantRecord
from quantchat.wire.messages import NO_ID, Generate, Ready


def chat_turns(snapshot: Snapshot) -> list[TurnRecord]:
    """Return the turns of the chat, without those of a measurement or a blind vote."""
    blind = {vote.turn for vote in snapshot.voting.votes} if snapshot.voting else set()
    return [t for t in snapshot.turns if t.round is None and t.number not in blind]


def restore(comparison: Comparison, snapshot: Snapshot) -> None:
    """Put the chat of `snapshot` into the new `comparison`, as if it had taken place there.

    Answers stay even if the profile no longer has a variant with their label. An answer that had
    not ended counts as stopped.
    """
    conversation = comparison.conversation
    ran = {variant.label: variant for variant in snapshot.variants}
    for record in chat_turns(snapshot):
        turn = conversation.begin(record.prompt, [])
        turn.history_of, turn.divergence = record.history_of, record.divergence
        for version in (*record.others, record.answers):
            answers = {saved.variant: _answer(saved, ran.get(saved.variant)) for saved in version}
            for saved in version:
                answers[saved.variant].request = _request(comparison, turn, saved)
            turn.others.append(answers)
        turn.answers = turn.others.pop()
        turn.shown_version = len(turn.others)


def _answer(record: AnswerRecord, variant: VariantRecord | None) -> Answer:
    state = AnswerState(record.state)
    over = state in (AnswerState.DONE, AnswerState.FAILED)
    thought = record.thought_pieces
    first = next((i for i, piece in enumerate(record.pieces) if piece), -1) if thought else 0
    return Answer(
        record.variant,
        record.order,
        state=state if over else AnswerState.DONE,
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        received_ns=record.received_ns,
        prefilled_ns=record.prefilled_ns,
        ids=list(record.ids),
        pieces=list(record.pieces),
        times_ns=list(record.times_ns),
        reported_tokens=record.timing.output_tokens if NO_ID in record.ids else None,
        text=record.text,
        thoughts=record.thoughts,
        thought_pieces=list(thought),
        thought_tokens=record.thought_tokens,
        first_answer_token=first,
        raw=record.raw,
        reason=record.reason if over else "stop",
        failure=record.failure,
        ledger=record.ledger,
        energy=record.energy,
        drafts=record.drafts,
        cross_perplexities=list(record.cross_perplexities),
        ran_on=_ready(record, variant),
    )


def _request(comparison: Comparison, turn: Turn, record: AnswerRecord) -> Generate | None:
    request = record.request
    if request is None:
        return None
    return Generate(
        turn=turn.number,
        messages=comparison.conversation.messages_for(record.variant, turn),
        sampling=request.sampling,
        max_new_tokens=request.max_new_tokens,
        threads=request.threads,
    )


def _ready(record: AnswerRecord, variant: VariantRecord | None) -> Ready | None:
    """Return the worker's report on the model that gave the answer; None if it was not saved."""
    model_info = record.model_info or (variant.model_info if variant else None)
    ledger = record.ledger or (variant.ledger if variant else None)
    if model_info is None or ledger is None:
        return None
    load = variant.load if variant else None
    seconds = (load.import_s, load.weights_s, load.warmup_s) if load else (0.0, 0.0, 0.0)
    return Ready(model_info, ledger, *seconds, note=variant.note if variant else "")
