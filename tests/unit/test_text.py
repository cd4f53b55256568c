"""Nothing from outside may act on the terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from quantchat.text import neutralise, one_line

BIDI = {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"}


@given(st.text(st.characters()))
def test_no_control_is_left(text: str) -> None:
    for character in neutralise(text):
        if character in "\n\t":
            continue
        assert unicodedata.category(character) not in ("Cc", "Cs")
        assert unicodedata.bidirectional(character) not in BIDI


@given(st.text(st.characters()), st.text(st.characters()))
def test_chunks_do_not_matter(first: str, second: str) -> None:
    assert neutralise(first + second) == neutralise(first) + neutralise(second)


@given(st.text(st.characters()))
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


def test_a_clipboard_write_becomes_visible() -> None:
    assert neutralise("a\x1b]52;c;aGk=\x07b\x9d") == "a␛]52;c;aGk=␇b⟨9D⟩"


def test_emoji_and_scripts_stay() -> None:
    for text in ("👩\u200d💻", "日本語", "é", "a\tb\nc"):
        assert neutralise(text) == text
