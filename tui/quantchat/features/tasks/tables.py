"""Evaluations as parts of a document: accuracies, changed answers, warnings, CSV rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantchat.document.document import (
    Block,
    Cell,
    Column,
    DataTable,
    Facts,
    Table,
    cells,
    table,
    warnings,
)
from quantchat.document.figures import UNKNOWN, number, with_error
from quantchat.document.model_results import Result, failures, heading, not_comparable, notes
from quantchat.snapshot.evaluation import (
    EvaluatedRecord,
    EvaluationRecord,
    FigureRecord,
    TaskResultRecord,
    different_questions,
    figures,
    flips,
    length_ratios,
    pool_tasks,
)
from quantchat.snapshot.schema import Snapshot
from quantchat.statistics.flips import Flips
from quantchat.statistics.intervals import CONFIDENCE, Ratio
from quantchat.statistics.multiple import holm
from quantchat.statistics.quality import Quantity

LEVEL = 1 - CONFIDENCE

_ROLES = {"reference": "reference", "floor": "noise floor", "variant": ""}
"""Role of a model → the words beside its label."""

FLIPS = ("Δ, %", "detectable, %", "lost", "gained", "p")
"""Headings of the columns that compare a model with the reference."""

MEANING = (
    "± is one standard error; Δ is paired by question. Lost: answers right in the reference and "
    "wrong here. Gained: the reverse. p is that of McNemar's exact test of lost and gained. "
    "Detectable: the smallest difference that this many questions show in four of five cases."
)

BY_PASSAGE = (
    "Questions about one passage depend on each other: errors and p take passages as units."
)


def blocks(evaluation: EvaluationRecord) -> list[Block]:
    """Return the whole evaluation: the tasks and how they were run, the tables, the warnings."""
    return [
        Facts(tuple(facts(evaluation))),
        *tables(evaluation),
        *warnings(evaluation_warnings(evaluation)),
    ]


def facts(evaluation: EvaluationRecord) -> list[str]:
    """Return the tasks, how they were run, and what the figures mean, one line each."""
    tasks = {task.task: task for model in evaluation.models for task in model.tasks}
    asked = "in the model's chat template" if evaluation.chat_template else "as plain text"
    at_once = f", {evaluation.batch} at a time" if evaluation.batch > 1 else ""
    return [
        f"asked by lm-evaluation-harness {evaluation.harness}, {asked}{at_once}",
        *(_task(task, evaluation.limit) for task in tasks.values()),
        MEANING,
        *([BY_PASSAGE] if any(task.passages for task in tasks.values()) else []),
    ]


def _task(task: TaskResultRecord, limit: int) -> str:
    first = "the first " if 0 < limit == task.questions else ""
    passages = f" about {task.clusters} passages" if task.passages else ""
    examples = f"{task.few_shot} examples before each" if task.few_shot else "no examples"
    return (
        f"{task.task} (version {task.version}): {first}{task.questions}"
        f" questions{passages} (SHA-256 {task.questions_sha256[:12]}), {examples}"
    )


def evaluation_warnings(evaluation: EvaluationRecord) -> list[str]:
    """Return which models failed or were not run, and the notes on the models, one line each."""
    lines = failures(evaluation.models)
    if evaluation.undone:
        lines.append(f"stopped before the end, not asked: {', '.join(evaluation.undone)}")
    lines += [
        f"{label} and the reference got different prompts in {task}: their answers are not compared"
        for label, task in different_questions(evaluation)
    ]
    return lines + notes(evaluation.models)


def tables(evaluation: EvaluationRecord) -> Iterator[Table]:
    """Yield a table for each task and metric, which compares each model with the reference."""
    keys = dict.fromkeys(
        (task.task, figure.metric, figure.filter)
        for model in evaluation.models
        for task, figure in figures(model)
    )
    for task, metric, chosen in keys:
        title = f"{task}: {metric}" + (f", {chosen}" if chosen != "none" else "")
        key = (task, metric, chosen)
        rows = [
            cells((_named(model), *_texts(evaluation, model, key))) for model in evaluation.models
        ]
        yield table(title, ("", "%", *FLIPS), rows)
    if len({task for task, _, _ in keys}) > 1:
        yield pooled_table(evaluation)
    yield from _length_tables(evaluation)


def _length_tables(evaluation: EvaluationRecord) -> Iterator[Table]:
    """Yield the lengths of written answers and thoughts, task by task.

    A quantized model that reasons longer to the same answer costs more for each question.
    """
    names = dict.fromkeys(task.task for model in evaluation.models for task in model.tasks)
    for name in names:
        rows = []
        for model in evaluation.models:
            task = next((one for one in model.tasks if one.task == name), None)
            if task is not None and task.answer_tokens:
                ratios = length_ratios(task, evaluation.reference)
                texts = [_mean(task.answer_tokens), _ratio(ratios[0])]
                texts += [_mean(task.thought_tokens), _ratio(ratios[1])]
                rows.append(cells((_named(model), *texts)))
        if rows:
            headings = ("", "answer, tokens", "÷ reference", "thoughts, tokens", "÷ reference")
            yield table(f"{name}: mean length of what was written", headings, rows)


def _mean(counts: Sequence[int]) -> str:
    return number(sum(counts) / len(counts)) if any(counts) else UNKNOWN


def _ratio(ratio: Ratio | None) -> str:
    """Return a ratio with its interval, which contains 1 if no difference is shown."""
    if ratio is None:
        return UNKNOWN
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.2f}"
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def pooled_table(evaluation: EvaluationRecord) -> Table:
    """Return a table of all tasks together, with a decision for each model.

    The p-values are corrected for the number of models (Holm).
    """
    done = [
        (model, pool_tasks(model, _reference_for(evaluation, model))) for model in evaluation.models
    ]
    tested = [its.flips.p for model, its in done if its and its.flips and model.role == "variant"]
    corrected = iter(holm(tested))
    rows = []
    for model, its in done:
        if its is None or its.flips is None:
            accuracy = f"{its.right / its.questions:.1%}" if its else UNKNOWN
            rows.append(cells((_named(model), accuracy, *[UNKNOWN] * 6)))
            continue
        seen = its.flips  # only variants count as tests: the noise floor's p is not corrected
        p = next(corrected) if model.role == "variant" else seen.p
        low, high = seen.interval
        texts = (
            f"{its.right / its.questions:.1%}",
            f"{seen.difference * 100:+.1f}",
            f"{low * 100:+.1f} to {high * 100:+.1f}",
            f"{seen.detectable * 100:.1f}",
            f"{seen.lost} / {seen.gained}",
            f"{p:.2g}",
            decision(seen, p),
        )
        rows.append(cells((_named(model), *texts)))
    title = "All tasks together, each question once; p corrected for the number of models (Holm)"
    units = {its.flips.clusters for _, its in done if its and its.flips}
    if any(task.passages for model in evaluation.models for task in model.tasks) and units:
        title += f"; {max(units)} independent passages and questions"
    headings = ("", "right", "Δ, %", "95 % interval", "detectable, %", "lost / gained", "p")
    return table(title, (*headings, Column("decision")), rows)


def _reference_for(evaluation: EvaluationRecord, model: EvaluatedRecord) -> EvaluatedRecord | None:
    return None if model is evaluation.reference else evaluation.reference


def decision(flips: Flips, p: float) -> str:
    """Return what the answers show, with the corrected p-value `p`, in plain words."""
    if p < LEVEL:
        return "worse than the reference" if flips.difference < 0 else "better than the reference"
    most = max(0.0, -flips.interval[0])
    return f"no difference shown; a loss of more than {most:.1%} is excluded"


def _named(model: EvaluatedRecord) -> Cell:
    return Cell(model.label, _ROLES[model.role])


def _texts(
    evaluation: EvaluationRecord, model: EvaluatedRecord, key: tuple[str, str, str]
) -> list[str]:
    for task, figure in figures(model):
        if (task.task, figure.metric, figure.filter) == key:
            return figure_texts(figure, flips(task, figure, evaluation.reference))
    return [UNKNOWN] * (1 + len(FLIPS))


def figure_texts(figure: FigureRecord, flips: Flips | None) -> list[str]:
    """Return a figure in percent, and the figures below the headings of `FLIPS`."""
    value = with_error(Quantity(figure.value, figure.error, None), times=100)
    if flips is None:
        return [value, *[UNKNOWN] * len(FLIPS)]
    difference = with_error(Quantity(flips.difference, flips.error, None), times=100, signed=True)
    detectable = f"{flips.detectable * 100:.1f}"
    return [value, difference, detectable, str(flips.lost), str(flips.gained), f"{flips.p:.2g}"]


def compared_blocks(
    runs: Sequence[Result[EvaluationRecord]], obstacles: Sequence[str]
) -> list[Block]:
    """Return the tables of each run, and why the runs are not comparable, if so."""
    parts: list[Block] = []
    for position, one in enumerate(runs, 1):
        parts += [*heading(position, one.file, one.snapshot), *tables(one.found)]
    return [*parts, *not_comparable(obstacles)]


_COLUMNS = (
    "snapshot", "model", "role", "task", "version", "few_shot", "questions", "metric", "filter",
    "value", "error", "lost", "gained", "p", "detectable", "clusters",
)  # fmt: skip


def data_table(snapshots: Sequence[tuple[str, Snapshot]]) -> DataTable:
    """Return each figure of each task for CSV; lost, gained and p are against the reference."""
    rows = []
    for file, snapshot in snapshots:
        found = snapshot.evaluation
        for model in found.models if found else ():
            for task, figure in figures(model):
                seen = flips(task, figure, found.reference if found else None)
                rows.append((
                    file, model.label, model.role, task.task, task.version, task.few_shot,
                    task.questions, figure.metric, figure.filter, figure.value, figure.error,
                    *((seen.lost, seen.gained, seen.p, seen.detectable)
                      if seen else (None,) * 4),
                    task.clusters,
                ))  # fmt: skip
    return DataTable(_COLUMNS, tuple(rows))
