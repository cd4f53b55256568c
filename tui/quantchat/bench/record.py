"""A comparison as it stands, made into a snapshot."""

from __future__ import annotations

import dataclasses
import platform
from datetime import datetime

import quantchat
from quantchat.bench.comparison import Comparison
from quantchat.bench.conversation import Answer, Turn, divergence_point, same_tokenizer
from quantchat.bench.live_variant import LiveVariant
from quantchat.bench.measurement import Measurement
from quantchat.bench.plan import PROMPT_TOKENS, predicted
from quantchat.bench.voting import Voting
from quantchat.metrics.memory import ProcessMemory, complete
from quantchat.metrics.sampler import DeviceSampler
from quantchat.snapshot.schema import (
    AnswerRecord,
    DisturbedRecord,
    Environment,
    LoadRecord,
    MeasurementRecord,
    RequestRecord,
    Snapshot,
    TaskRecord,
    TurnRecord,
    VariantRecord,
)
from quantchat.snapshot.votes import VoteRecord, VotingRecord
from quantchat.worker.protocol import Generate, Ready
from quantchat.worker.versions import versions

_LIBRARIES = (
    "torch",
    "transformers",
    "accelerate",
    "bitsandbytes",
    "gptqmodel",
    "textual",
    "pydantic",
    "psutil",
    "nvidia-ml-py",
)


def record(
    comparison: Comparison,
    sampler: DeviceSampler | None = None,
    measurement: Measurement | None = None,
    voting: Voting | None = None,
) -> Snapshot:
    """Return `comparison` as it stands now, in the middle of an answer too.

    `sampler` spares opening the driver anew; the turns of a `measurement` or a `voting` join
    those of the chat. To be called on the comparison's own event loop: no file is read for it.
    """
    sampler = sampler or DeviceSampler()
    measured = measurement.measured if measurement else []
    chat = list(comparison.conversation.turns)
    blind = [ballot.turn for ballot in voting.voted] if voting else []
    turns = [*chat, *blind, *(one.turn for one in measured)]
    ran = {variant.label: _ran(variant, turns) for variant in comparison.variants}
    tokens = comparison.generation.max_new_tokens + PROMPT_TOKENS
    return Snapshot(
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        quantchat=quantchat.__version__,
        name=comparison.profile.name,
        profile=comparison.profile.model_dump(),
        shown=[variant.label for variant in comparison.sides],
        variants=[_variant(v, ran[v.label], sampler, tokens) for v in comparison.variants],
        turns=[
            # By their places: what was asked again has used up a number of the chat's.
            *(_turn(turn, ran, number=place) for place, turn in enumerate(chat, start=1)),
            *(_turn(turn, ran) for turn in blind),
            *(_turn(one.turn, ran, one.task + 1, one.round) for one in measured),
        ],
        measurement=_measurement(measurement) if measurement else None,
        voting=_voting(voting) if voting else None,
        environment=environment(sampler),
    )


def environment(sampler: DeviceSampler) -> Environment:
    """The machine and the software, now."""
    return Environment(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        os=platform.platform(),
        libraries=versions(_LIBRARIES),
        device=sampler.sample(),
    )


def _ran(variant: LiveVariant, turns: list[Turn]) -> Ready | None:
    """What the variant runs on; once it is ended, what its newest answer ran on."""
    answers = (turn.answers.get(variant.label) for turn in reversed(turns))
    past = (answer.ready for answer in answers if answer is not None and answer.ready)
    return variant.ready or next(past, None)


def _variant(
    variant: LiveVariant, ran: Ready | None, sampler: DeviceSampler, tokens: int
) -> VariantRecord:
    ledger, memory = variant.ledger, _memory(variant, sampler)
    return VariantRecord(
        label=variant.label,
        state=variant.state.value,
        resolved=ran.resolved if ran else None,
        load=_load(variant.load_s, ran) if ran else None,
        note=ran.note if ran else "",
        ledger=complete(ledger, memory) if ledger and memory else ledger,
        memory=memory,
        predicted=predicted(variant.spec, variant.files, ran.resolved, tokens) if ran else None,
        failure=variant.failure,
    )


def _load(total_s: float, ran: Ready) -> LoadRecord:
    return LoadRecord(
        total_s=total_s, import_s=ran.import_s, weights_s=ran.weights_s, warmup_s=ran.warmup_s
    )


def _memory(variant: LiveVariant, sampler: DeviceSampler) -> ProcessMemory | None:
    if variant.pid is None or variant.ledger is None:
        return None
    return sampler.process_memory(variant.pid, variant.ledger)


def _voting(voting: Voting) -> VotingRecord:
    votes = [
        VoteRecord(
            turn=ballot.turn.number,
            left=ballot.left,
            right=ballot.right,
            choice=ballot.choice,
            seen=ballot.seen,
        )
        for ballot in voting.ballots
        if ballot.choice is not None
    ]
    return VotingRecord(seed=voting.plan.seed, paced=voting.paced, votes=votes)


def _measurement(measurement: Measurement) -> MeasurementRecord:
    plan = measurement.plan
    return MeasurementRecord(
        tasks=[TaskRecord(**dataclasses.asdict(task)) for task in plan.tasks],
        rounds=plan.rounds,
        warmup=plan.warmup,
        order=plan.order,
        ignore_eos=plan.ignore_eos,
        stopped=measurement.stopped,
        samples=measurement.samples,
        flags=measurement.flags,
        disturbed=[
            DisturbedRecord(
                task=one.task + 1, round=one.round, reason=one.reason, left_out=one.left_out
            )
            for one in measurement.disturbed
        ],
    )


def _turn(
    turn: Turn,
    ran: dict[str, Ready | None],
    task: int | None = None,
    round_: int | None = None,
    *,
    number: int | None = None,
) -> TurnRecord:
    return TurnRecord(
        number=number or turn.number,
        prompt=turn.prompt,
        task=task,
        round=round_,
        answers=[_answer(answer, ran.get(answer.variant)) for answer in turn.answers.values()],
        divergence_point=_divergence(turn),
        parting=turn.parting,
    )


def _divergence(turn: Turn) -> int | None:
    answers = list(turn.answers.values())[:2]
    if len(answers) < 2 or not same_tokenizer(*answers):
        return None
    return divergence_point(*answers)


def _answer(answer: Answer, ran: Ready | None) -> AnswerRecord:
    resolved = answer.ready.resolved if answer.ready else None
    return AnswerRecord(
        variant=answer.variant,
        order=answer.order,
        state=answer.state.value,
        reason=answer.reason,
        request=_request(answer.request) if answer.request else None,
        resolved=None if ran and resolved == ran.resolved else resolved,
        prompt_tokens=answer.prompt_tokens,
        cached_tokens=answer.cached_tokens,
        received_ns=answer.received_ns,
        prefilled_ns=answer.prefilled_ns,
        ids=list(answer.ids),
        pieces=list(answer.pieces),
        thought_pieces=list(answer.thought_pieces),
        times_ns=list(answer.times_ns),
        text=answer.text,
        thoughts=answer.thoughts,
        thought_tokens=answer.thought_tokens,
        raw=answer.raw,
        timing=answer.timing(),
        ledger=answer.ledger,
        energy=answer.energy,
        surprises=list(answer.surprises),
        failure=answer.failure,
    )


def _request(request: Generate) -> RequestRecord:
    first = request.messages[0]
    return RequestRecord(
        system=first.content if first.role == "system" else "",
        messages=len(request.messages),
        sampling=request.sampling,
        max_new_tokens=request.max_new_tokens,
        threads=request.threads,
    )
