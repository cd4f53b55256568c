"""Rebuilds the comparison and the plan of a snapshot, to measure it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from quantchat.engines.registry import engine_of
from quantchat.errors import UserError
from quantchat.measuring.rounds import MOST_TOKENS, Plan, Task
from quantchat.profile.mistakes import key_text, mistakes
from quantchat.profile.model import Generation, Profile, Run
from quantchat.session.continuing import chat_turns
from quantchat.snapshot.schema import RequestRecord, Snapshot, TurnRecord


@dataclass(frozen=True)
class Rerun:
    """What to measure again, and how."""

    profile: Profile
    """The profile of the snapshot, with the generation settings of the recorded answers."""
    pair: tuple[int, int]
    """Indices of the shown variants, left and right."""
    plan: Plan
    notes: tuple[str, ...]
    """Which settings cannot be repeated exactly, one line each."""

    @property
    def needs_trust(self) -> list[str]:
        """What the rerun would start or contact outside quantchat, one line each."""
        found = []
        for variant in (self.profile.variants[index] for index in self.pair):
            if variant.python:
                found.append(f'"{variant.label}" runs under {variant.python}')
            if variant.env:
                found.append(f'"{variant.label}" runs in the environment {variant.env}')
            lines = [*engine_of(variant).contacts(variant), *variant.unsafe_options]
            found += [f'"{variant.label}" {line}' for line in lines]
        return found


def rerun_of(snapshot: Snapshot, *, where: str) -> Rerun:
    """Return how to repeat the measurement of `snapshot`.

    Without a measurement, the prompts of its chat are measured.

    `where` names the snapshot in error messages. Raises UserError if it cannot be measured again.
    """
    profile = _valid(Profile, snapshot.profile, where)
    labels = [variant.label for variant in profile.variants]
    if len(set(snapshot.shown)) != 2 or not set(snapshot.shown) <= set(labels):
        raise UserError(
            "the profile in the snapshot lacks the two variants that the snapshot shows",
            where=where,
        )
    left, right = (labels.index(label) for label in snapshot.shown)
    measured = snapshot.measurement is not None and bool(snapshot.measurement.tasks)
    turns = [turn for turn in snapshot.turns if (turn.round is not None) == measured]
    notes: tuple[str, ...] = ()
    if not measured:
        if not turns:
            raise UserError("the snapshot has no prompt to measure", where=where)
        notes = (
            "the snapshot is a chat: each prompt is measured alone, without the turns before it",
        )
    plan = _plan(snapshot, where) if measured else _chat(turns, profile.run)
    settings = list(_settings(turns, plan, profile.generation, where))
    if settings:
        profile = profile.model_copy(update={"generation": settings[-1]})
    if any(one != settings[-1] for one in settings):
        notes += ("the settings were changed during the chat; the last ones are used",)
    return Rerun(profile, (left, right), plan, notes)


def chat_of(snapshot: Snapshot, *, where: str) -> Rerun:
    """Return the profile and the pair of variants with which the chat of `snapshot` can continue.

    The profile has the last settings of the chat.

    Raises UserError as `rerun_of` does, and if the snapshot holds no chat.
    """
    chat = chat_turns(snapshot)
    return rerun_of(snapshot.model_copy(update={"measurement": None, "turns": chat}), where=where)


def _plan(snapshot: Snapshot, where: str) -> Plan:
    record = snapshot.measurement
    assert record is not None  # noqa: S101  # checked by the caller
    lengths = [n for task in record.tasks for n in (task.prompt_tokens, task.output_tokens)]
    if min(lengths) < 0 or max(lengths) > MOST_TOKENS:
        raise UserError("a task of the measurement has an invalid length", where=where)
    run = _valid(Run, {"rounds": record.rounds, "warmup": record.warmup}, where)
    tasks = tuple(Task(**task.model_dump()) for task in record.tasks)
    return Plan(tasks, run.rounds, run.warmup, record.order, record.ignore_eos)


def _chat(turns: list[TurnRecord], run: Run) -> Plan:
    orders = [answer.order for turn in turns for answer in turn.answers]
    order = orders[-1] if orders else run.order
    return Plan(tuple(Task(turn.prompt) for turn in turns), run.rounds, run.warmup, order)


def _settings(
    turns: list[TurnRecord], plan: Plan, defaults: Generation, where: str
) -> Iterable[Generation]:
    """Yield the generation settings of each answer; `defaults` are those of the profile.

    If the task of an answer set the length of the answer, `max_new_tokens` is taken from
    `defaults` instead.
    """
    for turn in turns:
        number = turn.task or 0
        own_length = 0 < number <= len(plan.tasks) and plan.tasks[number - 1].output_tokens
        for answer in turn.answers:
            if answer.request is not None:
                settings = _fields(answer.request)
                if own_length:
                    settings["max_new_tokens"] = defaults.max_new_tokens
                yield _valid(Generation, settings, where)


def _fields(request: RequestRecord) -> dict[str, object]:
    return {
        "system": request.system,
        "max_new_tokens": request.max_new_tokens,
        **dataclasses.asdict(request.sampling),
    }


_Model = TypeVar("_Model", bound=BaseModel)


def _valid(model: type[_Model], data: Mapping[str, object], where: str) -> _Model:
    """Validate `data` by the current rules of profiles, which old or edited snapshots may break."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = next(mistakes(error))
        raise UserError(
            f"this version of quantchat cannot run it: {key_text(first.path)}: {first.what}",
            where=where,
            hint=first.hint,
        ) from None
