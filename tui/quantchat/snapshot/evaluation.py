"""Tasks in a snapshot: which documents each model was right on.

Models are compared by the answers that changed, so those are kept document by document, a 0 or a 1
for each, in the order in which they were asked. Times are seconds, figures from 0 to 1 mostly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from quantchat.snapshot.fields import AsObject, Record, Text
from quantchat.statistics.flips import Flips
from quantchat.wire.messages import Failed
from quantchat.wire.variant import Resolved

Role = Literal["reference", "variant"]


class FigureRecord(Record):
    """One metric of a task, after one of the harness's filters of answers."""

    metric: Text
    filter: Text
    """`none` where answers are taken as they are."""
    value: float
    error: float | None
    """Standard error of the mean over the documents; None where it is no such mean."""
    right: Annotated[Text, Field(json_schema_extra={"pattern": "^[01]*$"})]
    """For each document, in order, whether it was right; empty for a metric that is graded."""


class TaskResultRecord(Record):
    """What one model did of one task."""

    task: Text
    version: Text
    """Of the task, as the harness counts them."""
    few_shot: int
    """Examples that were shown before each question."""
    documents: int
    documents_sha256: Text
    """Over what was asked and what was wanted, in order."""
    figures: list[FigureRecord]


class EvaluatedRecord(Record):
    """One model that was to do the tasks."""

    label: Text
    role: Role
    resolved: AsObject[Resolved] | None
    """What really ran; None where it failed."""
    note: Text
    """What must be known of the model, e.g. that its base was itself dequantized."""
    tasks: list[TaskResultRecord]
    seconds: float
    """What answering took, without loading."""
    failure: AsObject[Failed] | None = None


class EvaluationRecord(Record):
    """What `quantchat eval` measured, through lm-evaluation-harness."""

    harness: Text
    """Version of lm-evaluation-harness."""
    chat_template: bool
    """Whether questions were put into the model's chat template."""
    limit: int
    """Documents of each task that were done; 0: all."""
    batch: int
    """Documents that a model was asked at a time."""
    models: list[EvaluatedRecord]
    """The reference first, then the variants in the profile's order."""
    undone: list[Text]
    """Labels of those that were not asked, since it was stopped before."""

    @property
    def reference(self) -> EvaluatedRecord | None:
        """The model that the others are held against, if it could do the tasks."""
        return next((m for m in self.models if m.role == "reference" and not m.failure), None)


def figures(model: EvaluatedRecord) -> Iterator[tuple[TaskResultRecord, FigureRecord]]:
    """Each figure of `model`, with its task."""
    return ((task, figure) for task in model.tasks for figure in task.figures)


def asked(task: TaskResultRecord) -> tuple[str, int, str]:
    """What tells a task from another of the same name."""
    return task.version, task.few_shot, task.documents_sha256


def flips(
    task: TaskResultRecord, figure: FigureRecord, reference: EvaluatedRecord | None
) -> Flips | None:
    """The answers of `figure` that changed.

    None for the reference itself, and where it was asked otherwise or tells no single answers.
    """
    for there, theirs in figures(reference) if reference else ():
        same = (there.task, theirs.metric, theirs.filter) == (
            task.task,
            figure.metric,
            figure.filter,
        )
        if not same or theirs is figure:
            continue
        paired = asked(there) == asked(task) and len(theirs.right) == len(figure.right) > 0
        return Flips.between(theirs.right, figure.right) if paired else None
    return None


def asked_otherwise(found: EvaluationRecord) -> Iterator[tuple[str, str]]:
    """Models that were not asked what the reference was, each with the task."""
    reference = found.reference
    theirs = {task.task: asked(task) for task in reference.tasks} if reference else {}
    for model in found.models:
        for task in model.tasks:
            if theirs.get(task.task, asked(task)) != asked(task):
                yield model.label, task.task


def obstacles(found: Sequence[EvaluationRecord]) -> list[str]:
    """Why several evaluations cannot be compared, a line each; none where they can."""
    reasons = []
    for field, name in (("harness", "lm-evaluation-harness"), ("chat_template", "chat template")):
        values = dict.fromkeys(str(getattr(one, field)) for one in found)
        if len(values) > 1:
            reasons.append(f"{name} differs: {', '.join(values)}")
    references = dict.fromkeys(_reference(one) for one in found)
    if len(references) > 1:
        reasons.append(f"reference differs: {', '.join(references)}")
    tasks = [_tasks(one) for one in found]
    for name in dict.fromkeys(name for one in tasks for name in one):
        told = [one.get(name) for one in tasks]
        if None in told:
            reasons.append(f"{name} was not done by each")
        elif any(one != told[0] for one in told):
            reasons.append(f"{name} differs: its version, examples or documents")
    return reasons


def _tasks(one: EvaluationRecord) -> dict[str, set[tuple[str, int, str]]]:
    """What was asked under each task's name."""
    told: dict[str, set[tuple[str, int, str]]] = {}
    for model in one.models:
        for task in model.tasks:
            told.setdefault(task.task, set()).add(asked(task))
    return told


def _reference(one: EvaluationRecord) -> str:
    """What tells the reference from another: its checkpoint, or its name on the hub, and dtype."""
    ran = one.reference.resolved if one.reference else None
    return f"{ran.checkpoint_hash[:12] or ran.model} in {ran.dtype}" if ran else "none"
