"""Nothing from outside may act on the terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from quantchat.text import neutralise, one_line, without_controls

ASSIGNED = [*map(chr, (*range(0x32000), *range(0xE0000, 0xF0000)))]
"""All that Unicode has said anything of; the planes between and behind are empty or private."""

BIDI = {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"}

JOINERS = "\u200c\u200d"
"""Invisible, and kept: whole scripts are misspelt without."""

SEEN_FORMATS = {
    *range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD,
}  # fmt: skip
"""Of the category Cf, and yet visible: signs written round a number (UAX #44,
Prepended_Concatenation_Mark)."""


def test_no_code_point_does_or_hides_anything() -> None:
    shown = set(neutralise("".join(ASSIGNED)))
    kept = {"\n", "\t", *JOINERS, *map(chr, SEEN_FORMATS)}
    assert kept <= shown
    left = shown - kept
    assert not {c for c in left if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert not {c for c in left if unicodedata.bidirectional(c) in BIDI}


def test_each_mark_tells_what_it_stands_for() -> None:
    marked = [c for c in ASSIGNED if neutralise(c) != c]
    assert len({neutralise(character) for character in marked}) == len(marked)


@given(st.text(st.characters()), st.text(st.characters()))
def test_chunks_do_not_matter(first: str, second: str) -> None:
    assert neutralise(first + second) == neutralise(first) + neutralise(second)


@given(st.text(st.characters()))
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


def test_a_clipboard_write_becomes_visible() -> None:
    assert neutralise("a\x1b]52;c;aGk=\x07b\x9d") == "a␛]52;c;aGk=␇b⟨9D⟩"


def test_hidden_text_becomes_visible() -> None:
    assert neutralise("a\u200bb\ufeff\u00ad\U000e0041") == "a⟨200B⟩b⟨FEFF⟩⟨00AD⟩⟨E0041⟩"


def test_emoji_and_scripts_stay() -> None:
    for text in ("👩\u200d💻", "❤\ufe0f", "می\u200cخواهم", "क्\u200dष", "日本語", "é", "a\tb\nc"):
        assert neutralise(text) == text


@given(st.text(st.characters()))
def test_what_is_marked_is_left_out_of_what_is_pasted(text: str) -> None:
    assert without_controls(text) == "".join(c for c in text if neutralise(c) == c)
