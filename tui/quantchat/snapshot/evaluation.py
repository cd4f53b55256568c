"""The results of tasks in a snapshot: which questions each model answered correctly.

A task is a benchmark of lm-evaluation-harness, which is called the harness here. Models are
compared by the answers that changed, so each answer is stored as 1 (right) or 0 (wrong), in the
order of the questions. Times are in seconds; most figures are from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from quantchat.snapshot.fields import AsObject, Record, Text
from quantchat.statistics.flips import Flips, design_effect
from quantchat.statistics.intervals import Pair, Ratio, ratio_of
from quantchat.wire.messages import Failed
from quantchat.wire.variant import ModelInfo

Role = Literal["reference", "floor", "variant"]


class FigureRecord(Record):
    """One metric of a task, computed from answers that a filter of the harness extracted."""

    metric: Text
    """The harness's name of the metric, e.g. `acc`."""
    filter: Text
    """The harness's name of the filter; `none` if answers are used unfiltered."""
    value: float
    """The metric over all questions of the task."""
    error: float | None
    """Standard error of `value`; None if the metric is not a mean over the questions."""
    right: Annotated[Text, Field(json_schema_extra={"pattern": "^[01]*$"})]
    """1 (right) or 0 (wrong) for each question, in order. Empty if the metric has other values than
    right and wrong."""


class TaskResultRecord(Record):
    """The result of one model in one task."""

    formerly: ClassVar[Mapping[str, str]] = {
        "documents": "questions",
        "documents_sha256": "questions_sha256",
    }

    task: Text
    """The harness's name of the task."""
    version: Text
    """The harness's version of the task."""
    few_shot: int
    """Number of examples that were shown before each question."""
    questions: int
    """Number of questions that were asked."""
    questions_sha256: Text
    """SHA-256 over the questions and the expected answers, in order."""
    figures: list[FigureRecord]
    """The metrics of the task, in the harness's order."""
    answer_tokens: list[int] = Field(default_factory=list)
    """Number of tokens of each generated answer without its thoughts, in order. Empty for a task in
    which the model chooses between given answers."""
    thought_tokens: list[int] = Field(default_factory=list)
    """Number of tokens of the thoughts before each of these answers."""
    passages: list[int] = Field(default_factory=list)
    """Number of the passage that each question is about, in order; empty if no two questions share
    a passage."""

    @property
    def clusters(self) -> int:
        """Number of independent units: passages, or questions if no two of them share a passage."""
        return len(set(self.passages)) or self.questions


class EvaluatedRecord(Record):
    """One model and its results."""

    formerly: ClassVar[Mapping[str, str]] = {"resolved": "model_info"}

    label: Text
    """Name of the variant in the profile."""
    role: Role
    """`reference`: the model that the others are compared with. `floor`: the noise floor, the
    reference once more with another attention implementation or dtype."""
    model_info: AsObject[ModelInfo] | None
    """What really ran; None if the model failed."""
    note: Text
    """A note on the model, e.g. that the model it was made from was itself dequantized."""
    tasks: list[TaskResultRecord]
    """The results by task; empty if the model failed."""
    seconds: float
    """Time for answering, without loading."""
    failure: AsObject[Failed] | None = None
    """Why the model failed; None if it did not."""


class EvaluationRecord(Record):
    """What `quantchat eval` measured, through lm-evaluation-harness."""

    harness: Text
    """Version of lm-evaluation-harness."""
    chat_template: bool
    """Whether questions were put into the model's chat template."""
    limit: int
    """Questions of each task that were used; 0: all."""
    batch: int
    """Questions per batch."""
    models: list[EvaluatedRecord]
    """The reference first, then its noise floor, then the variants in the profile's order."""
    undone: list[Text]
    """Labels of the models that were not asked, because the run was stopped."""

    @property
    def reference(self) -> EvaluatedRecord | None:
        """Return the model that the others are compared with, if it did not fail."""
        return next((m for m in self.models if m.role == "reference" and not m.failure), None)


def figures(model: EvaluatedRecord) -> Iterator[tuple[TaskResultRecord, FigureRecord]]:
    """Yield each figure of `model` with its task."""
    return ((task, figure) for task in model.tasks for figure in task.figures)


def length_ratios(
    task: TaskResultRecord, reference: EvaluatedRecord | None
) -> tuple[Ratio | None, Ratio | None]:
    """Return two ratios: length of answers ÷ the reference's, and length of thoughts ÷ its.

    Lengths are in tokens and are paired by question. Both ratios are None without a reference, for
    the reference itself, or if the reference was asked other questions. A ratio is None if no
    question has an answer (or thoughts) of both models.
    """
    other = (
        next((one for one in reference.tasks if one.task == task.task), None) if reference else None
    )
    if other is None or other is task or question_set(other) != question_set(task):
        return None, None
    return (
        _length_ratio(other.answer_tokens, task.answer_tokens, task.passages),
        _length_ratio(other.thought_tokens, task.thought_tokens, task.passages),
    )


def _length_ratio(
    theirs: Sequence[int], mine: Sequence[int], passages: Sequence[int]
) -> Ratio | None:
    both = zip(passages or range(len(mine)), theirs, mine, strict=False)
    return ratio_of([Pair(passage, 0, a, b) for passage, a, b in both if a > 0 and b > 0])


def question_set(task: TaskResultRecord) -> tuple[str, int, str]:
    """Return what identifies a task's questions: tasks of the same name may ask different ones."""
    return task.version, task.few_shot, task.questions_sha256


def flips(
    task: TaskResultRecord, figure: FigureRecord, reference: EvaluatedRecord | None
) -> Flips | None:
    """Count the answers of `figure` that changed from the reference.

    None without a reference, for the reference itself, if the questions differ, or if the metric
    has other values than right and wrong.
    """
    for there, theirs in figures(reference) if reference else ():
        same = (there.task, theirs.metric, theirs.filter) == (
            task.task,
            figure.metric,
            figure.filter,
        )
        if not same or theirs is figure:
            continue
        paired = (
            question_set(there) == question_set(task) and len(theirs.right) == len(figure.right) > 0
        )
        return Flips.between(theirs.right, figure.right, task.passages) if paired else None
    return None


@dataclass(frozen=True)
class PooledTasks:
    """All tasks of a model together: each question counts once, whichever task it belongs to."""

    questions: int
    right: int
    """Number of right answers."""
    design_effect: float
    """Variance of the accuracy with passages as independent units ÷ its variance with questions as
    independent units."""
    flips: Flips | None
    """Answers that changed from the reference. None for the reference itself, or if the reference
    was asked other questions."""


def pool_tasks(model: EvaluatedRecord, reference: EvaluatedRecord | None) -> PooledTasks | None:
    """Pool the answers of `model` over all tasks.

    Of each task, the first metric counts that says for each question whether its answer is right or
    wrong: `acc` comes before `acc_norm`. A task without such a metric is left out; None if no task
    is left. `flips` is None unless the reference answered the same questions in all these tasks.
    """
    chosen = [
        next(((task, figure) for figure in task.figures if figure.right), None)
        for task in model.tasks
    ]
    found = [one for one in chosen if one is not None]
    if not found:
        return None
    changed = [flips(task, figure, reference) for task, figure in found]
    known = [one for one in changed if one is not None]
    together = Flips.together(known) if len(known) == len(found) else None
    answers = "".join(figure.right for _, figure in found)
    groups = [group for task, figure in found for group in _right_by_passage(task, figure)]
    right = answers.count("1")
    return PooledTasks(len(answers), right, design_effect(groups, right), together)


def _right_by_passage(task: TaskResultRecord, figure: FigureRecord) -> Iterable[tuple[int, int]]:
    """Return for each passage the number of its questions and the number of right answers."""
    groups: dict[int, tuple[int, int]] = {}
    for name, answer in zip(task.passages or range(len(figure.right)), figure.right, strict=False):
        questions, right = groups.get(name, (0, 0))
        groups[name] = questions + 1, right + (answer == "1")
    return groups.values()


def different_questions(evaluation: EvaluationRecord) -> Iterator[tuple[str, str]]:
    """Yield the label of the model and the task whose questions differ from the reference's."""
    reference = evaluation.reference
    theirs = {task.task: question_set(task) for task in reference.tasks} if reference else {}
    for model in evaluation.models:
        for task in model.tasks:
            if theirs.get(task.task, question_set(task)) != question_set(task):
                yield model.label, task.task


def obstacles(evaluations: Sequence[EvaluationRecord]) -> list[str]:
    """Return the reasons why several evaluations are not comparable, one line each."""
    reasons = []
    for field, name in (("harness", "lm-evaluation-harness"), ("chat_template", "chat template")):
        values = dict.fromkeys(str(getattr(one, field)) for one in evaluations)
        if len(values) > 1:
            reasons.append(f"{name} differs: {', '.join(values)}")
    references = dict.fromkeys(_reference(one) for one in evaluations)
    if len(references) > 1:
        reasons.append(f"reference differs: {', '.join(references)}")
    tasks = [_tasks(one) for one in evaluations]
    for name in dict.fromkeys(name for one in tasks for name in one):
        asked_of = [one.get(name) for one in tasks]
        if None in asked_of:
            reasons.append(f"{name} is missing from some")
        elif any(one != asked_of[0] for one in asked_of):
            reasons.append(f"{name} differs: its version, examples or questions")
    return reasons


def _tasks(one: EvaluationRecord) -> dict[str, set[tuple[str, int, str]]]:
    """Return the identities of the questions that were asked under each task's name."""
    by_name: dict[str, set[tuple[str, int, str]]] = {}
    for model in one.models:
        for task in model.tasks:
            by_name.setdefault(task.task, set()).add(question_set(task))
    return by_name


def _reference(one: EvaluationRecord) -> str:
    """Return what identifies the reference: its checkpoint or name on the hub, and its dtype."""
    ran = one.reference.model_info if one.reference else None
    return f"{ran.checkpoint_hash[:12] or ran.model} in {ran.dtype}" if ran else "none"
