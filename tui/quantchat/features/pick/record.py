"""Turn what a pick has measured into candidates for the decision, and into a snapshot."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import datetime

import quantchat
from quantchat.features.pick.decide import Candidate
from quantchat.features.pick.plan import PickPlan, PlannedCandidate, scorable
from quantchat.features.pick.state import CandidateState, PickState
from quantchat.profile.model import Profile
from quantchat.session.live_variant import State
from quantchat.session.recorder import environment
from quantchat.snapshot.evaluation import EvaluationRecord, pool_tasks
from quantchat.snapshot.figures import AnswerFigure, by_name
from quantchat.snapshot.pick import PickRecord
from quantchat.snapshot.quality_gates import UncertainValue, mean_of_tokens, paired_difference
from quantchat.snapshot.schema import (
    MeasurementRecord,
    Snapshot,
    TaskRecord,
    TurnRecord,
    VariantRecord,
)
from quantchat.snapshot.score import ScoredRecord
from quantchat.system.sampler import DeviceSampler

APART = (
    "the variants were measured one after the other and not alternately: if the machine became"
    " slower meanwhile, this shows as a difference between variants"
)


def candidates(
    profile: Profile, plan: PickPlan, planned: Sequence[PlannedCandidate], state: PickState
) -> list[Candidate]:
    """Return what is known of each variant, in the order of `profile`."""
    estimates = {one.spec.label: one for one in planned}
    return [
        _candidate(spec.label, plan, estimates.get(spec.label), state) for spec in profile.variants
    ]


def _candidate(
    label: str, plan: PickPlan, planned: PlannedCandidate | None, state: PickState
) -> Candidate:
    its = state.candidates.get(label, CandidateState())
    dropped = planned.dropped if planned else ""
    if not dropped and its.failed:
        dropped = f"failed: {its.failed}"
    memory, how = _memory(planned, its)
    tokens, kld = _kld(label, plan, state)
    questions, drop = _drop(label, plan, its, state)
    return Candidate(
        label,
        dropped=dropped,
        memory=memory,
        memory_how=how,
        speeds=_speeds(its),
        kld=kld,
        tokens=tokens,
        drop=drop,
        questions=questions,
        is_reference=plan.score is not None and label == plan.score.reference.label,
    )


def _speeds(its: CandidateState) -> dict[tuple[int, int], float]:
    """Return the decode throughput of each measured answer, by prompt and round."""
    figure = by_name()["decode_tps"]
    assert isinstance(figure, AnswerFigure)  # noqa: S101  # this figure is one
    found = {}
    for turn in its.turns:
        for answer in turn.answers:
            value = figure.read(answer)
            if value is not None and turn.task is not None and turn.round is not None:
                found[turn.task, turn.round] = value
    return found


def _memory(planned: PlannedCandidate | None, its: CandidateState) -> tuple[int | None, str]:
    """Return the memory at the context length of the limits, and how it was found."""
    estimate = planned.plan.estimate if planned else None
    variant = its.variant
    if estimate is not None:
        weights = variant.ledger.weights if variant and variant.ledger else -1
        if weights > 0:
            return estimate.total - estimate.weights + weights, "weights measured, rest estimated"
        return estimate.total, "estimated"
    if variant is not None and variant.memory is not None and variant.memory.bytes:
        return variant.memory.bytes, "measured, at the context length of the prompts"
    return None, ""


def _kld(label: str, plan: PickPlan, state: PickState) -> tuple[int, UncertainValue | None]:
    """Return how many tokens were scored, and the mean KLD of the variant from the reference."""
    if plan.score is not None and label == plan.score.reference.label:
        return 0, UncertainValue(0.0, 0.0, 0.0)
    score = state.score
    found = _scored(state, label)
    if score is None or found is None or found.divergence is None:
        return 0, None
    setting = score.setting
    return setting.tokens, mean_of_tokens(found.divergence.kld_mean, setting.independent)


def _scored(state: PickState, label: str) -> ScoredRecord | None:
    models = state.score.models if state.score else []
    return next((one for one in models if one.label == label), None)


def _drop(
    label: str, plan: PickPlan, its: CandidateState, state: PickState
) -> tuple[int, UncertainValue | None]:
    """Return the number of questions, and the reference's accuracy minus the variant's."""
    if plan.tasks is None:
        return 0, None
    if label == plan.tasks.reference.label:
        return 0, UncertainValue(0.0, 0.0, 0.0)
    if its.evaluated is None or state.reference_evaluated is None:
        return 0, None
    found = pool_tasks(its.evaluated, state.reference_evaluated)
    if found is None or found.flips is None:
        return 0, None
    gain = paired_difference(found.flips)
    return found.questions, UncertainValue(-gain.value, -gain.centre, gain.margin)


# ------------------------------------------------------------ the snapshot


def snapshot_of(
    profile: Profile, plan: PickPlan, state: PickState, record: PickRecord, sampler: DeviceSampler
) -> Snapshot:
    """Return a snapshot of all variants; the recommended one and the runner-up are shown."""
    labels = [variant.label for variant in profile.variants]
    first = [label for label in (record.recommended, record.runner_up) if label]
    shown = list(dict.fromkeys([*first, *labels]))[:2]
    return Snapshot(
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        quantchat=quantchat.__version__,
        name=profile.name,
        profile=profile.model_dump(mode="json"),
        shown=shown,
        variants=[_variant(label, state) for label in labels],
        turns=_merged([state.candidates[one].turns for one in labels if one in state.candidates]),
        measurement=_measurement(plan, state, stopped=bool(record.stopped)),
        score=state.score,
        evaluation=_evaluation(profile, plan, state),
        pick=record,
        environment=environment(sampler),
    )


def _variant(label: str, state: PickState) -> VariantRecord:
    its = state.candidates.get(label)
    if its is not None and its.variant is not None:
        return its.variant
    scored = _scored(state, label)
    return VariantRecord(
        label=label,
        state=(State.FAILED if its and its.failed else State.IDLE).value,
        model_info=scored.model_info if scored else None,
        load=None,
        note="",
        ledger=None,
        memory=None,
        failure=None,
    )


def _merged(of_variants: Iterable[Sequence[TurnRecord]]) -> list[TurnRecord]:
    """Return the turns of all variants, with one turn for all answers to a prompt in a round."""
    found: dict[tuple[int, int], TurnRecord] = {}
    for turns in of_variants:
        for turn in turns:
            key = (turn.round or 0, turn.task or 0)
            earlier = found.get(key)
            answers = [*earlier.answers, *turn.answers] if earlier else turn.answers
            found[key] = turn.model_copy(update={"answers": answers, "divergence_point": None})
    return [
        found[key].model_copy(update={"number": number})
        for number, key in enumerate(sorted(found), 1)
    ]


def _measurement(plan: PickPlan, state: PickState, *, stopped: bool) -> MeasurementRecord | None:
    its = state.candidates
    if not any(one.turns for one in its.values()):
        return None
    flags = [f"{label}: {flag}" for label, one in its.items() for flag in one.flags]
    speed = plan.speed
    return MeasurementRecord(
        tasks=[TaskRecord(**dataclasses.asdict(task)) for task in speed.tasks],
        rounds=max(one.rounds for one in its.values()),
        warmup=speed.warmup,
        order=speed.order,
        ignore_eos=speed.ignore_eos,
        stopped=stopped,
        samples=[sample for one in its.values() for sample in one.samples],
        flags=[APART, *dict.fromkeys(flags)],
    )


def _evaluation(profile: Profile, plan: PickPlan, state: PickState) -> EvaluationRecord | None:
    if plan.tasks is None or not state.harness:
        return None
    evaluated = [one.evaluated for one in state.candidates.values() if one.evaluated]
    done = {one.label for one in evaluated}
    return EvaluationRecord(
        harness=state.harness,
        chat_template=plan.tasks.chat_template,
        limit=plan.tasks.limit,
        batch=plan.tasks.batch,
        models=[*([state.reference_evaluated] if state.reference_evaluated else []), *evaluated],
        undone=[one.label for one in scorable(profile) if one.label not in done],
    )
