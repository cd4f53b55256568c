"""All tasks pooled: one decision for each model."""

from __future__ import annotations

from fakes.saved_evaluations import done, evaluation, figure
from quantchat.features.tasks.tables import decision, facts, pooled_table, tables
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


# ------------------------------------------------------------ questions about one passage


def about(passages: list[int], model: EvaluatedRecord) -> EvaluatedRecord:
    """`model`, with its questions of the first task about these passages."""
    first, *rest = model.tasks
    return model.model_copy(
        update={"tasks": [first.model_copy(update={"passages": passages}), *rest]}
    )


def test_passages_make_the_pooled_decision_more_careful() -> None:
    """The 20 lost answers are about two passages: no evidence of a worse model any more."""
    names = [number // 10 for number in range(100)]
    alike = "10" * 50
    models = (
        model("bf16", "reference", "1" * 100, alike),
        model("worse", "variant", "1" * 80 + "0" * 20, alike),
    )
    alone, shared = evaluation(*models), evaluation(*(about(names, one) for one in models))
    texts = {}
    for name, one in (("alone", alone), ("shared", shared)):
        pooled = pooled_table(one)
        row = next(row for row in pooled.rows if row[0].text == "worse")
        texts[name] = [cell.text for cell in row[1:]]
        assert ("110 independent passages and questions" in pooled.title) == (name == "shared")
    assert texts["alone"][1] == texts["shared"][1] == "-10.0"
    assert texts["alone"][-1] == "worse than the reference"
    assert texts["shared"][-1].startswith("no difference shown")
    assert float(texts["shared"][3]) > 1.5 * float(texts["alone"][3])  # detectable

    lines = facts(shared)
    assert any("8 questions about 10 passages" in line for line in lines)
    assert any("take passages as units" in line for line in lines)
    assert not any("passage" in line for line in facts(alone))
