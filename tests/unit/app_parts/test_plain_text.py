"""Raw text is drawn completely, for any chunks and any terminal width."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from quantchat.app.plain_text import PlainText

texts = st.text("ab *\n日", max_size=80)


def lines(text: PlainText) -> list[str]:
    return [text.line(number).plain for number in range(text.height)]


@given(texts, st.integers(2, 20), st.data())
def test_all_of_it_is_drawn_within_the_width(source: str, width: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(source)))
    piecewise, whole = PlainText(), PlainText()
    piecewise.fit(width)
    piecewise.feed(source[:cut])
    settled = lines(piecewise)[: piecewise.final_height]
    piecewise.feed(source[cut:])
    whole.complete_with(source)
    whole.fit(width)
    assert lines(piecewise) == lines(whole)
    assert lines(piecewise)[: len(settled)] == settled
    assert all(cell_len(line) <= width for line in lines(whole))
    assert "".join("".join(lines(whole)).split()) == "".join(source.split())


def test_long_lines_are_wrapped_at_words() -> None:
    text = PlainText()
    text.fit(10)
    text.feed("one two three\n  four")
    assert lines(text) == ["one two ", "three", "  four"]
