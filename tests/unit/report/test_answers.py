"""The divergence of two answers in a report: cut between tokens, and never inside a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.saved_snapshots import answer, snapshot
from quantchat.report.turns import split, turns
from quantchat.snapshot.schema import AnswerRecord, TurnRecord


def of(*pieces: str, text: str | None = None) -> AnswerRecord:
    many = len(pieces)
    whole = "".join(pieces) if text is None else text
    return answer(
        "A", ids=list(range(many)), pieces=list(pieces), times_ns=list(range(many)), text=whole
    )


@pytest.mark.parametrize(
    ("given_", "point", "parts"),
    [
        (of("The", " cap", "ital"), 1, ("The", " cap", "ital")),
        (of("The", " cap"), 0, ("", "The", " cap")),
        (of("The", " cap"), 2, ("The cap", "", "")),  # it ended, the other went on
        (of("Oh ", "", "", "😀", "!"), 1, ("Oh ", "😀", "!")),
        (of("Oh ", "", text="Oh \ufffd"), 1, ("Oh ", "\ufffd", "")),
        (of("The", " cap"), None, ("The cap", None, "")),
        (of("The", " cap"), 7, ("The cap", None, "")),
        (of("x", "y", text="other"), 1, ("other", None, "")),
        (of("\x1b[0m", "\x07", "\x00"), 1, ("\x1b[0m", "\x07", "\x00")),
    ],
)
def test_cutting(
    given_: AnswerRecord, point: int | None, parts: tuple[str, str | None, str]
) -> None:
    said = split(given_, 0, point)
    assert (said.before, said.differing, said.after) == parts


@given(st.lists(st.text(max_size=3), max_size=6), st.integers(0, 8))
def test_nothing_of_the_text_is_lost(pieces: list[str], point: int) -> None:
    said, whole = split(of(*pieces), 0, point), split(of(*pieces), 0, None)
    assert said.before + (said.differing or "") + said.after == whole.before


@pytest.mark.parametrize(
    ("first", "second", "point", "told"),
    [
        ([1, 2], [1, 3], 1, "the answers diverge at token 2"),
        ([1, 2], [1, 2], None, "the same answer"),
        ([1, 2], [1], None, "no difference so far"),
        ([1, 2], [5, 6], None, "the tokenizers differ, so that tokens cannot be compared"),
        ([], [5, 6], None, ""),
    ],
)
def test_the_parting_is_told(
    first: list[int], second: list[int], point: int | None, told: str
) -> None:
    answers = [
        answer(label, ids=ids, pieces=["x"] * len(ids), times_ns=[1] * len(ids))
        for label, ids in (("A", first), ("B", second))
    ]
    turn = TurnRecord(number=4, prompt="?", answers=answers, divergence_point=point)
    (shown,) = turns(snapshot(turns=[turn]))
    assert (shown.title, shown.agreement) == ("Turn 4", told)
