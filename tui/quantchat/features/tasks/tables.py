"""An evaluation as tables (Rich): accuracies, the answers that changed, and what casts doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantchat.document.figures import UNKNOWN
from quantchat.document.several import Result, heading, not_comparable
from quantchat.document.shared_tables import failures, new_table, notes, with_error
from quantchat.snapshot.evaluation import (
    EvaluatedRecord,
    EvaluationRecord,
    FigureRecord,
    TaskResultRecord,
    asked_otherwise,
    figures,
    flips,
)
from quantchat.statistics.flips import Flips
from quantchat.statistics.quality import Quantity
from quantchat.text import one_line

FLIPS = ("Δ, %", "lost", "gained", "p")

MEANING = (
    "± is one standard error; Δ is paired by document. Lost and gained are answers that were right "
    "in the reference and are not here, and the other way round; p is McNemar's exact test of them."
)


def render(found: EvaluationRecord) -> Group:
    """The whole evaluation: what was asked and how, the tables, the doubts."""
    return Group(
        *(Text(one) for one in facts(found)),
        *tables(found),
        *(Text(f"! {doubt}", style="yellow") for doubt in doubts(found)),
    )


def facts(found: EvaluationRecord) -> list[str]:
    """What was asked and how, and what the figures mean, a line each."""
    tasks = {task.task: task for model in found.models for task in model.tasks}
    asked = "in the model's chat template" if found.chat_template else "as plain text"
    at_once = f", {found.batch} at a time" if found.batch > 1 else ""
    return [
        f"asked by lm-evaluation-harness {one_line(found.harness)}, {asked}{at_once}",
        *(_task(task, found.limit) for task in tasks.values()),
        MEANING,
    ]


def _task(task: TaskResultRecord, limit: int) -> str:
    first = "the first " if 0 < limit == task.documents else ""
    examples = f"{task.few_shot} examples before each" if task.few_shot else "no examples"
    return (
        f"{one_line(task.task)} (version {one_line(task.version)}): {first}{task.documents}"
        f" documents (SHA-256 {one_line(task.documents_sha256[:12])}), {examples}"
    )


def doubts(found: EvaluationRecord) -> list[str]:
    """What failed, what was not done, and what the models' checkpoints need known, a line each."""
    lines = failures(found.models)
    if found.undone:
        lines.append(f"stopped before the end, not asked: {one_line(', '.join(found.undone))}")
    lines += [
        f"{one_line(label)} was asked otherwise in {one_line(task)} than the reference was: "
        "their answers are not compared"
        for label, task in asked_otherwise(found)
    ]
    return lines + notes(found.models)


def tables(found: EvaluationRecord) -> Iterator[Table]:
    """A table for each task and metric: each model, against the reference."""
    keys = dict.fromkeys(
        (task.task, figure.metric, figure.filter)
        for model in found.models
        for task, figure in figures(model)
    )
    for task, metric, chosen in keys:
        title = f"{task}: {metric}" + (f", {chosen}" if chosen != "none" else "")
        table = new_table(one_line(title), "", "%", *FLIPS)
        for model in found.models:
            table.add_row(_named(model), *_cells(found, model, (task, metric, chosen)))
        yield table


def _named(model: EvaluatedRecord) -> Text:
    return Text.assemble(
        one_line(model.label), (" reference" if model.role == "reference" else "", "dim")
    )


def _cells(found: EvaluationRecord, model: EvaluatedRecord, key: tuple[str, str, str]) -> list[str]:
    for task, figure in figures(model):
        if (task.task, figure.metric, figure.filter) == key:
            return cells(figure, flips(task, figure, found.reference))
    return [UNKNOWN] * (1 + len(FLIPS))


def cells(figure: FigureRecord, seen: Flips | None) -> list[str]:
    """A figure in percent, and what `FLIPS` head."""
    value = with_error(Quantity(figure.value, figure.error, None), times=100)
    if seen is None:
        return [value, *[UNKNOWN] * len(FLIPS)]
    difference = Quantity(seen.difference, seen.error, None)
    told = with_error(difference, times=100, signed=True)
    return [value, told, str(seen.lost), str(seen.gained), f"{seen.p:.2g}"]


def render_several(runs: Sequence[Result[EvaluationRecord]], obstacles: Sequence[str]) -> Group:
    """Each run's tables beneath each other, and why they cannot be compared, if they cannot."""
    parts: list[RenderableType] = []
    for position, one in enumerate(runs, 1):
        parts += [heading(position, one.file, one.snapshot), *tables(one.found)]
    return Group(*parts, *not_comparable(obstacles))
