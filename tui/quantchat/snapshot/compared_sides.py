"""The columns of a comparison: each side of each run, with its figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from quantchat.errors import UserError
from quantchat.snapshot import figures
from quantchat.snapshot.figures import AnswerFigure, ProcessFigure
from quantchat.snapshot.schema import (
    AnswerRecord,
    MeasurementRecord,
    Snapshot,
    TurnRecord,
    VariantRecord,
)
from quantchat.wire.variant import Ledger, ModelInfo


class TaskKey(NamedTuple):
    """Identifies a task, that is, one prompt of a measurement with its token counts (`TaskRecord`).

    Equal keys in two runs mean the same task.
    """

    prompt: str
    prompt_tokens: int
    output_tokens: int
    repetition: int
    """Which repetition of the task this is, from 0: a plan may contain a task several times."""


@dataclass(frozen=True)
class Run:
    """A snapshot that holds a measurement, and the file it came from."""

    file: str
    snapshot: Snapshot

    def __post_init__(self) -> None:
        if self.snapshot.measurement is None:
            if self.snapshot.score is not None:
                raise UserError(
                    "is a score and not a measurement: the two kinds cannot be compared",
                    where=self.file,
                    hint="give only scores, or only measurements",
                )
            raise UserError(
                "is a chat and not a measurement",
                where=self.file,
                hint="`quantchat rerun` measures the prompts of a chat",
            )
        if len(set(self.snapshot.shown)) != 2 or len(self.snapshot.shown) != 2:
            raise UserError(
                "does not show two variants",
                where=self.file,
                hint="give snapshots of measurements with two different variants",
            )

    @property
    def measurement(self) -> MeasurementRecord:
        """Return how the run was measured."""
        assert self.snapshot.measurement is not None  # noqa: S101  # __post_init__ checked it
        return self.snapshot.measurement

    @cached_property
    def tasks(self) -> dict[int, TaskKey]:
        """Return the key of each task by the task's number."""
        seen: Counter[tuple[str, int, int]] = Counter()
        keys = {}
        for number, task in enumerate(self.measurement.tasks, 1):
            same = (task.prompt, task.prompt_tokens, task.output_tokens)
            keys[number] = TaskKey(*same, seen[same])
            seen[same] += 1
        return keys


@dataclass(frozen=True)
class Column:
    """One variant in one run; `letter` is its name in gates."""

    letter: str
    number: int
    """The number of the run, from 1."""
    run: Run
    label: str

    @cached_property
    def variant(self) -> VariantRecord | None:
        """Return the record of the variant, or None."""
        return next((v for v in self.run.snapshot.variants if v.label == self.label), None)

    @cached_property
    def answers(self) -> dict[tuple[TaskKey, int], AnswerRecord]:
        """Return each finished, measured answer by task and round."""
        return {
            (self.run.tasks[turn.task], turn.round): answer
            for turn in measured_turns(self.run.snapshot)
            if turn.task in self.run.tasks and turn.round is not None
            for answer in turn.answers
            if answer.variant == self.label and answer.state == "done"
        }

    @property
    def model_info(self) -> ModelInfo | None:
        """Return what really ran, or None if not known."""
        if self.variant is not None and self.variant.model_info is not None:
            return self.variant.model_info
        return next(
            (answer.model_info for answer in self.answers.values() if answer.model_info), None
        )

    @property
    def ledger(self) -> Ledger | None:
        """Return the newest memory ledger, or None."""
        if self.variant is not None and self.variant.ledger is not None:
            return self.variant.ledger
        ledgers = [answer.ledger for answer in self.answers.values() if answer.ledger]
        return ledgers[-1] if ledgers else None

    def samples(self, figure: AnswerFigure) -> dict[tuple[TaskKey, int], float]:
        """Return the figure of each answer that has it, by task and round."""
        read = ((key, figure.read(answer)) for key, answer in self.answers.items())
        return {key: value for key, value in read if value is not None and value > 0}

    def value(self, figure: ProcessFigure) -> float | None:
        """Return the value of `figure` for the variant's process, or None if not known."""
        return figure.read(self.variant, self.ledger) if self.variant else None

    def repeatable(self, figure: ProcessFigure) -> bool:
        """Return whether another process of the same variant would have the same value of `figure`.

        The memory that a GPU's allocators take is repeatable. Resident memory is not: it
        differed by half between processes of one variant, depending on the pages they had mapped.
        """
        memory = self.variant.memory if self.variant else None
        return figure.exact or (memory is not None and memory.source in ("nvml", "torch"))

    def mean(self, figure: AnswerFigure | ProcessFigure) -> float | None:
        """Return the mean of `figure` over all answers, or the single value of a process figure."""
        if isinstance(figure, ProcessFigure):
            return self.value(figure)
        values = list(self.samples(figure).values())
        return math.fsum(values) / len(values) if values else None


def figures_of(columns: Sequence[Column]) -> list[AnswerFigure | ProcessFigure]:
    """Return the figures to show for `columns`, without those that apply to none of the answers.

    For example, TTFA is shown only if an answer has thoughts: otherwise it equals TTFT.
    """
    answers = [answer for column in columns for answer in column.answers.values()]
    return [
        figure
        for figure in figures.FIGURES
        if not isinstance(figure, AnswerFigure)
        or figure.applies is None
        or any(map(figure.applies, answers))
    ]


def measured_turns(snapshot: Snapshot) -> list[TurnRecord]:
    """Return the turns of the measurement, without those of the chat."""
    return [turn for turn in snapshot.turns if turn.round is not None]


def columns(runs: Sequence[Run]) -> list[Column]:
    """Return the left and the right variant of each run: a and b, then c and d."""
    shown = [(n, run, label) for n, run in enumerate(runs, 1) for label in run.snapshot.shown]
    return [Column(column_letter(index), *each) for index, each in enumerate(shown)]


def pairs_between_runs(columns: Sequence[Column]) -> Iterator[tuple[Column, Column]]:
    """Yield each later column of a variant with the first column of that variant."""
    firsts: dict[str, Column] = {}
    for column in columns:
        first = firsts.setdefault(column.label, column)
        if first.number != column.number:
            yield first, column


def pairs_within_runs(columns: Sequence[Column]) -> Iterator[tuple[Column, Column]]:
    """Yield the left and the right column of each run."""
    yield from zip(columns[::2], columns[1::2], strict=True)


def column_letter(index: int) -> str:
    """Return the name of the column at `index` as in a spreadsheet: a to z, then aa, ab."""
    name = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        name = chr(ord("a") + letter) + name
    return name
