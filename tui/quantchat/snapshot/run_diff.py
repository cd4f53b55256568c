"""How the columns of a comparison ran: what differed, and whether they can be compared at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quantchat.errors import UserError
from quantchat.snapshot.compared_sides import Column, Run, TaskKey, between
from quantchat.snapshot.schema import AnswerRecord, RequestRecord
from quantchat.system.process_memory import SOURCES
from quantchat.wire.variant import Resolved

_HASH_SHOWN = 12
"""Digits of a hash that are shown: enough to tell any two apart."""

_MOST_COUNTS = 12
"""Prompts whose token counts are told one by one."""


@dataclass(frozen=True)
class Difference:
    """One thing that was not the same everywhere; an empty value is not known."""

    what: str
    values: tuple[str, ...]
    """In the order of the columns."""


class NotComparable(UserError):
    """Runs whose figures do not speak of the same work: each reason is a line."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(reasons[0])
        self._reasons = tuple(reasons)

    @property
    def lines(self) -> tuple[str, ...]:
        """Each reason, the last with what to do."""
        *before, last = (f"not comparable: {reason}" for reason in self._reasons)
        return (*before, f"{last} (--force compares all the same)")


def unless_forced(obstacles: list[str], *, force: bool) -> list[str]:
    """`obstacles` to a comparison, for it to be shown with. Raises NotComparable unless `force`."""
    if obstacles and not force:
        raise NotComparable(obstacles)
    return obstacles


# ------------------------------------------------------------ what differed


def differences(columns: Sequence[Column]) -> list[Difference]:
    """What was not the same in each column, as it was recorded, the model first."""
    told = [_told(column, columns[0].run) for column in columns]
    rows = dict.fromkeys(name for one in told for name in one)
    found = [Difference(name, tuple(one.get(name, "") for one in told)) for name in rows]
    return [one for one in found if len(set(one.values)) > 1]


def _told(column: Column, first: Run) -> dict[str, str]:
    """All that can be told of how a column ran, by name."""
    resolved, run = column.resolved, column.run
    told = {name: tell(resolved) if resolved else "" for name, tell in _RESOLVED.items()}
    environment, measurement = run.snapshot.environment, run.measurement
    device = environment.device
    told |= {
        "threads": _each(column, cpu_threads),
        "GPU": ", ".join(dict.fromkeys(gpu.name for gpu in device.gpus)),
        "driver": device.driver or "",
        "processor": f"{device.host.cpu}, {device.host.cores} cores",
        "operating system": environment.os,
        "Python": environment.python,
        "quantchat": run.snapshot.quantchat,
        "order": measurement.order,
        "rounds": str(measurement.rounds) + (", stopped" if measurement.stopped else ""),
        "warm-up": str(measurement.warmup),
        "past the end": "yes" if measurement.ignore_eos else "no",
        "settings": _each(column, lambda answer: _settings(answer.request)),
        "prompts": str(len({task for task, _ in column.answers})),
        "prompts of run 1": str(len(set(run.tasks.values()) & set(first.tasks.values()))),
        "prompt tokens": _counts(column, lambda answer: answer.prompt_tokens),
        "output tokens": _counts(column, lambda answer: answer.timing.output_tokens),
        "memory is": _source(column),
    }
    libraries = resolved.libraries if resolved else {}
    return told | {f"library {name}": version for name, version in libraries.items()}


_RESOLVED: dict[str, Callable[[Resolved], str]] = {
    "model": lambda r: r.model,
    "checkpoint": lambda r: r.checkpoint_hash[:_HASH_SHOWN],
    "adapter": lambda r: r.adapter_hash[:_HASH_SHOWN],
    "tokenizer": lambda r: r.tokenizer_hash[:_HASH_SHOWN],
    "architecture": lambda r: r.architecture,
    "engine": lambda r: r.engine,
    "kernel": lambda r: r.kernel,
    "dtype": lambda r: r.dtype,
    "device": lambda r: f"{r.where} ({r.device_name})",
    "attention": lambda r: r.attention_used,
    "decoding": lambda r: r.decode,
    "chat template": lambda r: "yes" if r.chat_template else "no",
}


def cpu_threads(answer: AnswerRecord) -> str:
    """How many; empty on a GPU, where they decide nothing. On a CPU nothing decides more."""
    on_cpu = answer.ledger is not None and answer.ledger.device == "cpu"
    return str(answer.request.threads) if answer.request and on_cpu else ""


def _settings(request: RequestRecord | None) -> str:
    if request is None:
        return ""
    system = f", system prompt “{request.system[:40]}”" if request.system else ""
    return asked_for(request) + system


def asked_for(request: RequestRecord) -> str:
    """The sampling settings and the longest answer, in words."""
    sampling = request.sampling
    parts = ["greedy" if sampling.temperature == 0 else f"temperature {sampling.temperature:g}"]
    if sampling.temperature:
        parts.append(f"top-p {sampling.top_p:g}, top-k {sampling.top_k}, seed {sampling.seed}")
    if sampling.repetition_penalty != 1:
        parts.append(f"repetition penalty {sampling.repetition_penalty:g}")
    return ", ".join([*parts, f"at most {request.max_new_tokens} tokens"])


def _each(column: Column, tell: Callable[[AnswerRecord], str]) -> str:
    """What is said of the answers: once, where it is the same of each."""
    return ", ".join(dict.fromkeys(filter(None, map(tell, column.answers.values()))))


def _counts(column: Column, count: Callable[[AnswerRecord], int]) -> str:
    """Tokens by prompt, `40, 44, 42–46`: a range where they differed between rounds."""
    by_task: dict[TaskKey, list[int]] = {}
    for (task, _), answer in column.answers.items():
        by_task.setdefault(task, []).append(count(answer))
    if len(by_task) > _MOST_COUNTS:
        return f"{sum(map(sum, by_task.values()))} over {len(by_task)} prompts"
    ranges = ((min(counts), max(counts)) for counts in by_task.values())
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in ranges)


def _source(column: Column) -> str:
    memory = column.variant.memory if column.variant else None
    return SOURCES.get(memory.source, memory.source) if memory else ""


# ------------------------------------------------------------ whether they can be compared


def obstacles(runs: Sequence[Run], columns: Sequence[Column]) -> list[str]:
    """Why the runs cannot be compared, a line each; empty where they can.

    It is the runs that are looked at, each against the first: two variants within one run differ by
    design, and its own flags tell where their answers had different lengths.
    """
    found = []
    for number, run in enumerate(runs[1:], 2):
        first, own = ([c for c in columns if c.number == n] for n in (1, number))
        order = runs[0].measurement.order, run.measurement.order
        if len(set(order)) > 1:
            found.append(f"the order is {order[0]} in run 1 and {order[1]} in run {number}")
        if not set(runs[0].tasks.values()) & set(run.tasks.values()):
            found.append(f"runs 1 and {number} have no prompt in common")
        found += _other_model(first, own)
    for base, column in between(columns):
        found += [*_other_checkpoint(base, column), *_other_tokens(base, column)]
    return found


def _other_model(first: Sequence[Column], own: Sequence[Column]) -> Iterator[str]:
    known = {_model(column.resolved) for column in first if column.resolved}
    for column in own:
        if column.resolved and known and _model(column.resolved) not in known:
            yield f"{_name(column)} is another model than those of run 1: {_model_words(column)}"


def _model(resolved: Resolved) -> tuple[str, str]:
    return resolved.architecture, resolved.tokenizer_hash


def _model_words(column: Column) -> str:
    resolved = column.resolved
    assert resolved is not None  # noqa: S101  # the caller looked
    return f"{resolved.architecture}, tokenizer {resolved.tokenizer_hash[:_HASH_SHOWN]}"


def _other_checkpoint(base: Column, column: Column) -> Iterator[str]:
    a, b = base.resolved, column.resolved
    if a is None or b is None:
        return
    if a.checkpoint_hash and b.checkpoint_hash:
        one, other = a.checkpoint_hash[:_HASH_SHOWN], b.checkpoint_hash[:_HASH_SHOWN]
    else:
        one, other = _asked(base, a), _asked(column, b)
    if one != other:
        yield f"{_name(base)} ran the checkpoint {one}, {_name(column)} {other}"


def _asked(column: Column, resolved: Resolved) -> str:
    """The model as the profile names it, with its revision: an id has no hash of its files."""
    variants = column.run.snapshot.profile.get("variants")
    for variant in variants if isinstance(variants, list) else []:
        if isinstance(variant, dict) and variant.get("label") == column.label:
            return str(variant.get("model", resolved.model))
    return resolved.model


def _other_tokens(base: Column, column: Column) -> Iterator[str]:
    """The first prompt whose token counts differ, for prompts and for answers."""
    shared = [key for key in base.answers if key in column.answers]
    counts: tuple[tuple[str, Callable[[AnswerRecord], int], str], ...] = (
        ("prompt", lambda answer: answer.prompt_tokens, ""),
        ("output", lambda answer: answer.timing.output_tokens, "; --ignore-eos makes them equal"),
    )
    for what, count, cure in counts:
        for key in shared:
            one, other = count(base.answers[key]), count(column.answers[key])
            if one != other:
                task = next(n for n, task in base.run.tasks.items() if task == key[0])
                yield (
                    f"{what} tokens differ, as in prompt {task}, round {key[1]}: "
                    f"{_name(base)} {one}, {_name(column)} {other}{cure}"
                )
                break


def _name(column: Column) -> str:
    return f'{column.letter} ("{column.label}" of run {column.number})'
