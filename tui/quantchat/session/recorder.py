"""Turns the current state of a comparison into a snapshot."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import quantchat
from quantchat.checkpoints.variant_files import PROMPT_TOKENS, predicted
from quantchat.common.versions import versions
from quantchat.engines.registry import libraries
from quantchat.estimate.memory import Estimate
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Answer, Turn, divergence_point, same_tokenizer
from quantchat.session.live_variant import LiveVariant
from quantchat.snapshot.schema import (
    AnswerRecord,
    Environment,
    LoadTimesRecord,
    MeasurementRecord,
    RequestRecord,
    Snapshot,
    TurnRecord,
    VariantRecord,
)
from quantchat.snapshot.votes import VotingRecord
from quantchat.system.gpus import GpuSample, lowest_capability
from quantchat.system.process_memory import ProcessMemory, with_process_memory
from quantchat.system.sampler import DeviceSampler
from quantchat.system.visible_gpus import cuda_name, gpus_visible_here
from quantchat.wire.messages import Generate, Ready
from quantchat.wire.variant import ModelInfo

_LIBRARIES = (
    "torch",
    *(library.package for library in libraries()),
    "textual",
    "pydantic",
    "psutil",
    "nvidia-ml-py",
)


@dataclass(frozen=True)
class RecordedTurn:
    """A turn of a measurement or vote, which is not part of the chat."""

    turn: Turn
    task: int | None = None
    """Number of the measurement's prompt that it answers, counted from 1."""
    round: int | None = None


def record(
    comparison: Comparison,
    sampler: DeviceSampler | None = None,
    *,
    more: Sequence[RecordedTurn] = (),
    measurement: MeasurementRecord | None = None,
    voting: VotingRecord | None = None,
) -> Snapshot:
    """Return a snapshot of the current state of `comparison`, even while an answer runs.

    With an open `sampler`, the GPU's driver is not opened again. `more` are the turns of the
    `measurement` or the `voting`; they follow those of the chat. The turns of the snapshot are
    numbered from 1. Call this on the comparison's event loop: it does not block, for it reads no
    file.
    """
    sampler = sampler or DeviceSampler()
    chat = list(comparison.conversation.turns)
    turns = [*chat, *(one.turn for one in more)]
    ran = {variant.label: _ran(variant, turns) for variant in comparison.variants}
    tokens = comparison.generation.max_new_tokens + PROMPT_TOKENS
    machine = environment(sampler)
    gpus = machine.device.gpus
    return Snapshot(
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        quantchat=quantchat.__version__,
        name=comparison.profile.name,
        profile=comparison.profile.model_dump(),
        shown=[variant.label for variant in comparison.sides],
        variants=[_variant(v, ran[v.label], sampler, gpus, tokens) for v in comparison.variants],
        turns=[
            *(_turn(turn, ran, number) for number, turn in enumerate(chat, start=1)),
            *(
                _turn(one.turn, ran, number, one.task, one.round)
                for number, one in enumerate(more, start=len(chat) + 1)
            ),
        ],
        measurement=measurement,
        voting=voting,
        environment=machine,
    )


def environment(sampler: DeviceSampler) -> Environment:
    """Return the current machine and software."""
    return Environment(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        os=platform.platform(),
        libraries=versions(_LIBRARIES),
        device=sampler.sample(),
    )


def _ran(variant: LiveVariant, turns: list[Turn]) -> Ready | None:
    """Return the worker's report on the loaded model.

    If the worker has ended, return the report that is stored with the variant's newest answer.
    """
    answers = (turn.answers.get(variant.label) for turn in reversed(turns))
    past = (answer.ran_on for answer in answers if answer is not None and answer.ran_on)
    return variant.ready or next(past, None)


def _variant(
    variant: LiveVariant,
    ran: Ready | None,
    sampler: DeviceSampler,
    gpus: Sequence[GpuSample],
    tokens: int,
) -> VariantRecord:
    ledger, memory = variant.ledger, _memory(variant, sampler)
    return VariantRecord(
        label=variant.label,
        state=variant.state.value,
        model_info=ran.model_info if ran else None,
        load=_load(variant.load_s, ran) if ran else None,
        note=ran.note if ran else "",
        ledger=with_process_memory(ledger, memory) if ledger and memory else ledger,
        memory=memory,
        predicted=_predicted(variant, ran.model_info, gpus, tokens) if ran else None,
        failure=variant.failure,
    )


def _predicted(
    variant: LiveVariant, ran: ModelInfo, gpus: Sequence[GpuSample], tokens: int
) -> Estimate | None:
    shown = gpus_visible_here(gpus)
    used = [gpu for gpu in shown if cuda_name(gpu, shown) in (ran.device, *ran.devices)]
    return predicted(variant.spec, variant.files, ran, tokens, lowest_capability(used))


def _load(total_s: float, ran: Ready) -> LoadTimesRecord:
    return LoadTimesRecord(
        total_s=total_s, import_s=ran.import_s, weights_s=ran.weights_s, warmup_s=ran.warmup_s
    )


def _memory(variant: LiveVariant, sampler: DeviceSampler) -> ProcessMemory | None:
    if variant.pid is None or variant.ledger is None:
        return None
    return sampler.process_memory(variant.pid, variant.ledger)


def _turn(
    turn: Turn,
    ran: dict[str, Ready | None],
    number: int,
    task: int | None = None,
    round_: int | None = None,
) -> TurnRecord:
    return TurnRecord(
        number=number,
        prompt=turn.prompt,
        task=task,
        round=round_,
        answers=[_answer(answer, ran.get(answer.variant)) for answer in turn.answers.values()],
        history_of=turn.history_of,
        others=[
            [_answer(answer, ran.get(answer.variant)) for answer in version.values()]
            for version in turn.others
        ],
        divergence_point=_divergence(turn),
        divergence=turn.divergence,
    )


def _divergence(turn: Turn) -> int | None:
    answers = list(turn.answers.values())[:2]
    if len(answers) < 2 or not same_tokenizer(*answers):
        return None
    return divergence_point(*answers)


def _answer(answer: Answer, ran: Ready | None) -> AnswerRecord:
    model_info = answer.ran_on.model_info if answer.ran_on else None
    return AnswerRecord(
        variant=answer.variant,
        order=answer.order,
        state=answer.state.value,
        reason=answer.reason,
        request=_request(answer.request) if answer.request else None,
        model_info=None if ran and model_info == ran.model_info else model_info,
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
        drafts=answer.drafts,
        energy=answer.energy,
        cross_perplexities=list(answer.cross_perplexities),
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
