"""Which questions of a task are about the same passage, and what that does to an error."""

from __future__ import annotations

import statistics

import pytest

from quantchat.worker.jobs.evaluate import _error, passages_of


def test_questions_with_an_equal_passage_are_about_one() -> None:
    questions = [{"question": n, "passage": text} for n, text in enumerate("aabca")]
    assert passages_of(questions) == [0, 0, 1, 2, 0]


def test_a_passage_may_be_a_list_and_may_be_missing() -> None:
    questions = [{"context": ["x", "y"]}, {"context": ["x", "y"]}, {"context": ""}, {}]
    assert passages_of(questions) == [0, 0, 1, 2]


@pytest.mark.parametrize(
    "questions",
    [
        [{"question": "a"}, {"question": "a"}],  # equal questions are no passage
        [{"passage": "a"}, {"passage": "b"}],  # none is shared
        [{"context": "Answer:"}, {"context": "Answer:"}],  # part of the prompt
        ["a", "a"],
        [],
    ],
)
def test_without_shared_passages_questions_stand_alone(questions: list[object]) -> None:
    assert passages_of(questions) == []


def test_a_field_that_is_the_same_everywhere_does_not_hide_the_passages() -> None:
    questions = [{"context": "Read.", "article": text} for text in "aab"]
    assert passages_of(questions) == [0, 0, 1]


def test_the_error_is_that_of_passages_if_it_is_larger() -> None:
    values = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    alone = statistics.stdev(values) / 8**0.5
    assert _error(values, []) == pytest.approx(alone)
    whole = statistics.stdev(values[::2]) / 4**0.5  # pairs of equal answers: four of them
    assert _error(values, [0, 0, 1, 1, 2, 2, 3, 3]) == pytest.approx(whole)
    assert _error(values, [0, 1, 0, 1, 2, 3, 2, 3]) == pytest.approx(alone)  # they cancel out
    assert _error([1.0], []) is None
