"""The plan of a pick: what to measure, within which limits, and which variants cannot fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantchat import corpus
from quantchat.checkpoints.variant_files import PROMPT_TOKENS
from quantchat.corpus import Corpus
from quantchat.document.figures import size
from quantchat.engines import registry
from quantchat.engines.registry import engine_of
from quantchat.errors import UserError
from quantchat.measuring.evaluating import EvaluationPlan, require_harness, tasks_named
from quantchat.measuring.memory_plan import VariantPlan, make_plan
from quantchat.measuring.rounds import Plan, Task
from quantchat.measuring.score_plan import ScorePlan
from quantchat.profile.model import AnyVariant, Profile
from quantchat.session import from_models
from quantchat.session.reference import reference_of
from quantchat.snapshot.pick import LimitsRecord, Preference
from quantchat.system.sampler import DeviceSample


@dataclass(frozen=True)
class PickSettings:
    """What a user asks of a pick, on the command line or on the screen."""

    prompts: tuple[str, ...]
    prefer: Preference = "fastest"
    max_memory: int | None = None
    """Most memory, in bytes. For this and the other limits, None is no limit."""
    context: int | None = None
    """Context length in tokens at which memory is estimated; None: the longest answer plus room for
    a prompt."""
    min_tps: float | None = None
    """Lowest decode throughput, in tok/s."""
    max_kld: float | None = None
    """Largest mean KLD from the reference, in nats."""
    max_drop: float | None = None
    """Largest loss of accuracy against the reference, as a share of the questions of `tasks`."""
    tasks: str = "own"
    """Names of tasks, with commas between; used only with `max_drop`."""
    reference: str | None = None
    minutes: float | None = None
    rounds: int = 3
    max_new_tokens: int = 128
    tokens: int = 8192
    """Tokens of the scored text."""


@dataclass(frozen=True)
class PickPlan:
    """What to measure of each variant of a profile, and how to decide."""

    limits: LimitsRecord
    speed: Plan
    """Prompts and rounds of one visit to a variant. A visit loads the variant, measures its speed
    and ends its worker."""
    score: ScorePlan | None
    """How to score variants; None if no variant can be compared with a reference."""
    tasks: EvaluationPlan | None = None
    """How to run tasks; None if there is no limit on the loss of accuracy."""
    minutes: float | None = None
    """Minutes after which no step starts. Time that is left after the first visit to each variant
    is used for further visits that can change the result. None: each variant is visited once."""
    fetch: bool = True
    """Whether headers of models may be read from the hub."""


@dataclass(frozen=True)
class PlannedCandidate:
    """A variant before it is loaded: its estimate, or why it is dropped."""

    spec: AnyVariant
    plan: VariantPlan
    dropped: str = ""


@dataclass(frozen=True)
class ScoredText:
    """The text that is scored."""

    corpus: Corpus
    tokens: int
    window: int


def plan_of(profile: Profile, settings: PickSettings) -> tuple[Profile, PickPlan]:
    """Return `profile` with the answer length of `settings`, and the plan. Raises UserError."""
    length = {"max_new_tokens": settings.max_new_tokens}
    generation = profile.generation.model_copy(update=length)
    profile = profile.model_copy(update={"generation": generation})
    text = ScoredText(corpus.dataset(corpus.OWN), settings.tokens, 512)
    scored = score_plan(profile, text, settings.reference)
    return profile, PickPlan(
        limits=LimitsRecord(
            context=settings.context or settings.max_new_tokens + PROMPT_TOKENS,
            max_memory=settings.max_memory,
            min_tps=settings.min_tps,
            max_kld=settings.max_kld,
            max_drop=settings.max_drop,
            prefer=settings.prefer,
        ),
        speed=Plan(
            tasks=tuple(map(Task, settings.prompts)), rounds=settings.rounds, ignore_eos=True
        ),
        score=scored,
        tasks=_tasks(profile, settings.tasks, scored) if settings.max_drop is not None else None,
        minutes=settings.minutes,
    )


def _tasks(profile: Profile, words: str, scored: ScorePlan | None) -> EvaluationPlan:
    if scored is None:
        raise UserError("no variant can be compared with a reference", where="--max-drop")
    require_harness([scored.reference, *scorable(profile)])
    return EvaluationPlan(tasks=tasks_named(words), reference=scored.reference)


def with_methods(profile: Profile, methods: str) -> Profile:
    """Return a profile of variants that quantize the model of `profile` by `methods`.

    `methods` are names of `registry.methods()` with commas between; `all` stands for all of them.
    Raises UserError.
    """
    chosen = [method.strip() for method in methods.split(",") if method.strip()]
    if chosen == ["all"]:
        chosen = list(registry.methods())
    return from_models.profile_of([reference_of(profile, None).model], methods=chosen)


def scorable(profile: Profile) -> list[AnyVariant]:
    """Return the variants that can be compared with a reference: all but those on a server."""
    return [one for one in profile.variants if not engine_of(one).is_server]


def score_plan(profile: Profile, text: ScoredText, reference: str | None) -> ScorePlan | None:
    """Return how to score the variants of `profile`, or None if none can be compared.

    `reference` names the reference as in `reference_of`. Raises UserError if the name is unknown,
    or if the variants do not say which model they were made from.
    """
    found = scorable(profile)
    if not found:
        if reference is not None:
            raise UserError("no variant can be compared with a reference", where="--reference")
        return None
    return ScorePlan(
        corpus=text.corpus,
        reference=reference_of(profile.model_copy(update={"variants": found}), reference),
        tokens=text.tokens,
        window=text.window,
        stride=text.window,
        floor="none",
        pair=False,
    )


def plan_candidates(
    profile: Profile, plan: PickPlan, sample: DeviceSample
) -> list[PlannedCandidate]:
    """Return each variant with its memory estimate, the promising variants first.

    The estimate is for the context length of the limits. Small variants are usually fast and large
    ones close to the original, so the preference decides the order, and limited time is spent on
    promising variants. A variant is dropped only for one of the reasons of `drop_reason`.
    """
    limits = plan.limits
    pair = tuple(range(min(2, len(profile.variants))))
    made = make_plan(profile, sample, tokens=limits.context, pair=pair, fetch=plan.fetch)
    found = [
        PlannedCandidate(spec, its, drop_reason(its, limits))
        for spec, its in zip(profile.variants, made.variants, strict=True)
    ]
    return sorted(found, key=_weights, reverse=limits.prefer == "closest")


def _weights(one: PlannedCandidate) -> int:
    return one.plan.estimate.weights if one.plan.estimate else 0


def drop_reason(its: VariantPlan, limits: LimitsRecord) -> str:
    """Return why the variant cannot run here or cannot meet the memory limit; empty if it can."""
    if its.device.unusable:
        return f"cannot run: {its.device.unusable}"
    if its.estimate is None:
        return ""
    needs = f"needs about {size(its.estimate.total)} at {limits.context:,} tokens of context"
    if limits.max_memory is not None and its.estimate.total > limits.max_memory:
        return f"{needs}, more than {size(limits.max_memory)}"
    if its.device.free is not None and its.estimate.total > its.device.free:
        return f"{needs}, and {size(its.device.free)} are free on {its.device.name}"
    return ""


def sub_profile(profile: Profile, variants: Sequence[AnyVariant]) -> Profile:
    """Return `profile` with only these variants; unlike in a profile file, one is enough."""
    return profile.model_copy(update={"variants": list(variants)})
