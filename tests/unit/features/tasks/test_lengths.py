"""Lengths of written answers and thoughts, against the reference."""

from __future__ import annotations

import random

import pytest

from fakes.printed_document import printed
from fakes.saved_evaluations import done, evaluation, figure
from quantchat.features.tasks.tables import tables
from quantchat.snapshot.evaluation import EvaluatedRecord, EvaluationRecord, length_ratios
from quantchat.worker.jobs.evaluate import _lengths


def model(label: str, role: str, times: float, thoughts: float) -> EvaluatedRecord:
    """Forty answers, whose lengths differ from question to question."""
    lengths, noise = random.Random(1), random.Random(label)
    its = done(label, role, figure("1" * 40), task="stories")
    base = [lengths.randint(50, 200) for _ in range(40)]
    task = its.tasks[0].model_copy(
        update={
            "answer_tokens": [round(times * n * noise.uniform(0.9, 1.1)) for n in base],
            "thought_tokens": [round(thoughts * n * noise.uniform(0.9, 1.1)) for n in base],
        }
    )
    return its.model_copy(update={"tasks": [task]})


def found() -> EvaluationRecord:
    return evaluation(
        model("bf16", "reference", 1.0, 4.0),
        model("longer", "variant", 1.0, 6.0),
        model("silent", "variant", 1.0, 0.0),
    )


def test_longer_thoughts_are_shown_beside_equally_long_answers() -> None:
    its = found()
    answers, thoughts = length_ratios(its.models[1].tasks[0], its.reference)
    assert answers is not None and not answers.shown and answers.value == pytest.approx(1, abs=0.05)
    assert thoughts is not None and thoughts.shown
    assert thoughts.value == pytest.approx(1.5, abs=0.05)
    text = printed(tables(its))
    (row,) = (line for line in text.splitlines() if "longer" in line and "(" in line)
    assert "1.5" in row


def test_without_thoughts_there_is_no_ratio() -> None:
    its = found()
    answers, thoughts = length_ratios(its.models[2].tasks[0], its.reference)
    assert answers is not None and thoughts is None
    assert length_ratios(its.models[0].tasks[0], its.reference) == (None, None)


def test_questions_with_choices_have_no_lengths() -> None:
    chosen = evaluation(done("bf16", "reference", figure("10")), done("a", "variant", figure("11")))
    assert "length" not in printed(tables(chosen))


class Words:
    """A tokenizer with a token for each word."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[str]:
        assert not add_special_tokens
        return text.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is Paris.", (3, 0)),
        ("<think>\nwell let me see\n</think>\n\nIt is Paris.", (3, 4)),
        ("well let me see\n</think>\n\nIt is Paris.", (3, 4)),  # opened by the prompt
        ("<think>\nwell let me", (0, 3)),  # cut off at the longest length
    ],
)
def test_thoughts_are_counted_apart(text: str, expected: tuple[int, int]) -> None:
    assert _lengths(text, Words()) == expected
