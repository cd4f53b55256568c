"""How the columns of a comparison ran: what differed, and whether they are comparable.

A column is one variant in one run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quantchat.errors import UserError
from quantchat.snapshot.compared_sides import Column, Run, TaskKey, pairs_between_runs
from quantchat.snapshot.schema import AnswerRecord, RequestRecord
from quantchat.system.process_memory import SOURCES
from quantchat.wire.variant import ModelInfo

_HASH_SHOWN = 12
"""Number of hexadecimal digits that are shown of a hash."""

_MOST_COUNTS = 12
"""Most prompts whose token counts are listed one by one."""


@dataclass(frozen=True)
class Difference:
    """A setting or library that differed between columns. An empty value means not known."""

    what: str
    values: tuple[str, ...]
    """The values in the order of the columns."""


class NotComparable(UserError):
    """The runs did different work, so their figures are not comparable. `lines` has the reasons."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(reasons[0])
        self._reasons = tuple(reasons)

    @property
    def lines(self) -> tuple[str, ...]:
        """Return each reason as a line; the last line also says what to do."""
        *before, last = (f"not comparable: {reason}" for reason in self._reasons)
        return (*before, f"{last} (--force compares them anyway)")


def raise_unless_forced(obstacles: list[str], *, force: bool) -> list[str]:
    """Return `obstacles`, which are shown with a comparison that the user forced.

    Raises NotComparable if there are any and `force` is not set.
    """
    if obstacles and not force:
        raise NotComparable(obstacles)
    return obstacles


# ------------------------------------------------------------ what differed


def differences(columns: Sequence[Column]) -> list[Difference]:
    """Return what differed between the columns, the model first."""
    recorded = [_recorded(column, columns[0].run) for column in columns]
    names = dict.fromkeys(name for one in recorded for name in one)
    rows = [Difference(name, tuple(one.get(name, "") for one in recorded)) for name in names]
    return [row for row in rows if _differs(row, columns)]


def _differs(row: Difference, columns: Sequence[Column]) -> bool:
    """Return whether the values differ.

    An engine records only its own libraries. So a library that some variants lack in every run is
    no difference.
    """
    if not row.what.startswith(_LIBRARY):
        return len(set(row.values)) > 1
    by_label: dict[str, set[str]] = {}
    for column, version in zip(columns, row.values, strict=True):
        by_label.setdefault(column.label, set()).add(version)
    versions = set(filter(None, row.values))
    return len(versions) > 1 or any(len(found) > 1 for found in by_label.values())


_LIBRARY = "library "
"""The name of a row with a library's version begins with this."""


def _recorded(column: Column, first: Run) -> dict[str, str]:
    """Return all that is recorded on how a column ran, by name."""
    model_info, run = column.model_info, column.run
    values = {
        name: read(model_info) if model_info else "" for name, read in _MODEL_INFO_ROWS.items()
    }
    environment, measurement = run.snapshot.environment, run.measurement
    device = environment.device
    values |= {
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
        "ignore EOS": "yes" if measurement.ignore_eos else "no",
        "settings": _each(column, lambda answer: _settings(answer.request)),
        "prompts": str(len({task for task, _ in column.answers})),
        "prompts shared with run 1": str(len(set(run.tasks.values()) & set(first.tasks.values()))),
        "prompt tokens": _counts(column, lambda answer: answer.prompt_tokens),
        "output tokens": _counts(column, lambda answer: answer.timing.output_tokens),
        "memory source": _source(column),
    }
    libraries = model_info.libraries if model_info else {}
    return values | {f"{_LIBRARY}{name}": version for name, version in libraries.items()}


_MODEL_INFO_ROWS: dict[str, Callable[[ModelInfo], str]] = {
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
    "decoding": lambda r: r.decoding,
    "chat template": lambda r: "yes" if r.chat_template else "no",
}
"""Name of a row → the function that reads its value from the `ModelInfo` of a column."""


def cpu_threads(answer: AnswerRecord) -> str:
    """Return the number of CPU threads; empty on a GPU, where they make no difference."""
    on_cpu = answer.ledger is not None and answer.ledger.device == "cpu"
    return str(answer.request.threads) if answer.request and on_cpu else ""


def _settings(request: RequestRecord | None) -> str:
    if request is None:
        return ""
    system = f", system prompt “{request.system[:40]}”" if request.system else ""
    return request_text(request) + system


def request_text(request: RequestRecord) -> str:
    """Return the sampling settings and the largest number of output tokens as text."""
    sampling = request.sampling
    parts = ["greedy" if sampling.temperature == 0 else f"temperature {sampling.temperature:g}"]
    if sampling.temperature:
        parts.append(f"top-p {sampling.top_p:g}, top-k {sampling.top_k}, seed {sampling.seed}")
    if sampling.temperature and sampling.min_p:
        parts.append(f"min-p {sampling.min_p:g}")
    if sampling.presence_penalty:
        parts.append(f"presence penalty {sampling.presence_penalty:g}")
    if sampling.frequency_penalty:
        parts.append(f"frequency penalty {sampling.frequency_penalty:g}")
    if sampling.repetition_penalty != 1:
        parts.append(f"repetition penalty {sampling.repetition_penalty:g}")
    if sampling.logit_bias:
        biased = ", ".join(f"{token} {bias:+g}" for token, bias in sampling.logit_bias.items())
        parts.append(f"logit bias {biased}")
    if sampling.stop:
        parts.append(f"stop at {' or '.join(map(json.dumps, sampling.stop))}")
    parts.append(f"at most {request.max_new_tokens} tokens")
    if sampling.max_thinking_tokens:
        parts.append(f"{sampling.max_thinking_tokens} of them thoughts")
    return ", ".join(parts)


def _each(column: Column, read: Callable[[AnswerRecord], str]) -> str:
    """Return the different values that `read` returns for the answers, joined by commas."""
    return ", ".join(dict.fromkeys(filter(None, map(read, column.answers.values()))))


def _counts(column: Column, count: Callable[[AnswerRecord], int]) -> str:
    """Return the token count of each prompt, `40, 44, 42–46`: a range if it differed by round."""
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


_ORDERS = {"together": "together", "in-turn": "one at a time"}
"""Order in the snapshot → its name in messages."""


def obstacles(runs: Sequence[Run], columns: Sequence[Column]) -> list[str]:
    """Return the reasons why the runs are not comparable, one line each.

    Each run is checked against the first one. The two variants of one run are not checked against
    each other: they differ by design, and the run itself warns if their answers differ in length.
    """
    found = []
    for number, run in enumerate(runs[1:], 2):
        first, own = ([c for c in columns if c.number == n] for n in (1, number))
        order = runs[0].measurement.order, run.measurement.order
        if len(set(order)) > 1:
            first_order, own_order = (_ORDERS[each] for each in order)
            found.append(f"run 1 ran {first_order}, run {number} {own_order}")
        if not set(runs[0].tasks.values()) & set(run.tasks.values()):
            found.append(f"runs 1 and {number} have no prompt in common")
        found += _other_model(first, own)
    for base, column in pairs_between_runs(columns):
        found += [*_other_checkpoint(base, column), *_other_tokens(base, column)]
    return found


def _other_model(first: Sequence[Column], own: Sequence[Column]) -> Iterator[str]:
    known = {_model(column.model_info) for column in first if column.model_info}
    for column in own:
        if column.model_info and known and _model(column.model_info) not in known:
            yield f"{_name(column)} is a different model than in run 1: {_model_text(column)}"


def _model(info: ModelInfo) -> tuple[str, str]:
    return info.architecture, info.tokenizer_hash


def _model_text(column: Column) -> str:
    model_info = column.model_info
    assert model_info is not None  # noqa: S101  # the caller checked
    return f"{model_info.architecture}, tokenizer {model_info.tokenizer_hash[:_HASH_SHOWN]}"


def _other_checkpoint(base: Column, column: Column) -> Iterator[str]:
    a, b = base.model_info, column.model_info
    if a is None or b is None:
        return
    if a.checkpoint_hash and b.checkpoint_hash:
        one, other = a.checkpoint_hash[:_HASH_SHOWN], b.checkpoint_hash[:_HASH_SHOWN]
    else:
        one, other = _model_in_profile(base, a), _model_in_profile(column, b)
    if one != other:
        yield f"{_name(base)} ran the checkpoint {one}, {_name(column)} {other}"


def _model_in_profile(column: Column, info: ModelInfo) -> str:
    """Return the model as the profile names it, for a model without a hash of its files."""
    variants = column.run.snapshot.profile.get("variants")
    for variant in variants if isinstance(variants, list) else []:
        if isinstance(variant, dict) and variant.get("label") == column.label:
            return str(variant.get("model", info.model))
    return info.model


def _other_tokens(base: Column, column: Column) -> Iterator[str]:
    """Yield a reason for the first different count of prompt tokens, and one for output tokens."""
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
