"""All tasks pooled: one decision for each model."""

from __future__ import annotations

from fakes.saved_evaluations import done, evaluation, figure
from quantchat.features.tasks.tables import decision, pooled_table, tables
from quantchat.snapshot.evaluation import EvaluatedRecord, EvaluationRecord
from quantchat.statistics.flips import Flips


def model(label: str, role: str, letters: str, numbers: str) -> EvaluatedRecord:
    first = done(label, role, figure(letters), task="letters")
    second = done(label, role, figure(numbers), task="numbers")
    return first.model_copy(update={"tasks": [*first.tasks, *second.tasks]})


def found() -> EvaluationRecord:
    return evaluation(
        model("bf16", "reference", "1" * 100, "10" * 50),
        model("same", "variant", "1" * 100, "10" * 50),
        model("worse", "variant", "1" * 80 + "0" * 20, "10" * 45 + "00" * 5),
    )


def test_tasks_are_pooled_by_document() -> None:
    *_, pooled = tables(found())
    assert pooled == pooled_table(found())
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in pooled.rows}
    assert rows["bf16"][0] == "75.0%"
    assert rows["same"][:2] == ["75.0%", "+0.0"]
    assert rows["same"][-1].startswith("no difference shown; a loss of more than ")
    assert rows["worse"][:2] == ["62.5%", "-12.5"]
    assert rows["worse"][4] == "25 / 0"
    assert rows["worse"][-1] == "worse than the reference"


def test_one_task_needs_no_pool() -> None:
    one = evaluation(done("bf16", "reference", figure("10")), done("a", "variant", figure("11")))
    assert len(list(tables(one))) == 1


def test_the_decision_follows_the_corrected_p() -> None:
    seen = Flips(400, 8, 0)
    assert seen.p < 0.05
    assert decision(seen, seen.p) == "worse than the reference"
    assert decision(seen, 7 * seen.p).startswith("no difference shown")
    assert decision(Flips(400, 0, 30), 0.0) == "better than the reference"
