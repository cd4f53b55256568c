"""The difference of two texts, word by word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quantchat.statistics.word_diff import Part, word_diff

texts = st.text("ab \n", max_size=40)


@given(texts, texts)
def test_the_parts_are_the_texts(first: str, second: str) -> None:
    parts = list(word_diff(first, second))
    assert "".join(part.first for part in parts) == first
    assert "".join(part.second for part in parts) == second


def test_it_names_what_differs() -> None:
    assert list(word_diff("The capital is Paris.", "The capital was Paris.")) == [
        Part("The capital", "The capital"),
        Part(" is", " was"),
        Part(" Paris.", " Paris."),
    ]
