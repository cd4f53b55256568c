"""The job that runs tasks of lm-evaluation-harness ("the harness") with a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantchat.wire.jobs.job import Job, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.wire.variant import ModelInfo


@dataclass(frozen=True)
class TaskFigure:
    """One metric of a task, as lm-evaluation-harness computes it."""

    metric: str
    """The harness's name of the metric, e.g. `acc`."""
    filter: str
    """The harness's name of the filter that extracted the answer from the model's output."""
    value: float
    error: float | None
    """Standard error; None if the figure is not a mean over questions."""
    right: str
    """A character for each question, in order: 1 for a right answer, 0 for a wrong one. Empty if
    the metric has other values than right and wrong."""


@dataclass(frozen=True)
class TaskResult:
    """The figures of a model in one task."""

    task: str
    """The harness's name of the task."""
    version: str
    """The harness's version of the task."""
    few_shot: int
    """Number of examples before each question."""
    questions: int
    """Number of questions."""
    questions_sha256: str
    """SHA-256 over all questions and expected answers, in order."""
    figures: list[TaskFigure]
    answer_tokens: list[int] = field(default_factory=list)
    """Number of tokens of each generated answer without its thoughts, in order; empty if the task
    only compares the probabilities of given answers."""
    thought_tokens: list[int] = field(default_factory=list)
    """Number of tokens of the thoughts before each of these answers."""
    passages: list[int] = field(default_factory=list)
    """Number of the passage that each question is about, in order; empty if no two questions share
    a passage."""


@dataclass(frozen=True)
class EvaluateResult:
    """The figures of a model in all tasks."""

    model_info: ModelInfo
    harness: str
    """Version of lm-evaluation-harness."""
    seconds: float
    """Seconds for answering, without loading the model."""
    tasks: list[TaskResult]


@dataclass(frozen=True)
class EvaluateJob(Job[EvaluateResult]):
    """Run tasks of lm-evaluation-harness with a model."""

    title = "evaluate"

    load: LoadModel
    tasks: list[str]
    """Names of the harness's tasks, or paths of YAML files."""
    workspace: Workspace
    limit: int = 0
    """Largest number of questions of each task; 0: all."""
    few_shot: int = -1
    """Number of examples before each question; -1: the task's own number."""
    batch: int = 1
    """Number of questions answered at once."""
    template: bool = False
    """Whether to put each question into the model's chat template."""
    tokenizer: str = ""
    """For a server: folder or hub id of the tokenizer with which texts are counted and cut."""
