"""Lines fitted to a width in terminal cells."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from textual.content import Content

from quantchat.app.widgets.text_layout import join_fitting, spread, untrusted

_text = st.text(st.characters(categories=["L", "N", "P", "Zs", "So"]), max_size=40)


@given(_text, _text, st.integers(1, 60))
def test_spread_fills_the_width_exactly(left: str, right: str, width: int) -> None:
    line = spread(Content(left), Content(right), width)
    if Content(right).cell_length < width:
        assert line.cell_length == width
        assert line.plain.endswith(Content(right).plain)
    else:
        assert line.cell_length <= width


@given(st.lists(_text, max_size=6), st.integers(1, 60))
def test_fitted_takes_whole_parts(parts: list[str], width: int) -> None:
    line = join_fitting([Content(part) for part in parts], width, gap=" · ")
    assert line.cell_length <= width
    taken = [Content(part).plain for part in parts if part]
    if taken and Content(taken[0]).cell_length <= width:
        pieces = " · ".join(taken)
        assert line.plain.startswith(taken[0])
        assert line.cell_length <= len(pieces) * 2


def test_what_does_not_fit_is_left_out_and_what_follows_may_fit() -> None:
    parts = [Content("one"), Content("a long one"), Content(""), Content("two")]
    assert join_fitting(parts, 9).plain == "one  two"


@given(st.text())
def test_text_from_outside_is_one_neutral_line(text: str) -> None:
    plain = untrusted(text, "bold").plain
    assert "\n" not in plain and "\x1b" not in plain
