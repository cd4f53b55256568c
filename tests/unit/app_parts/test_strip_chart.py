"""Charts of a figure over time, on a given scale."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from quantchat.app.widgets.strip_chart import (
    at_intervals,
    bar,
    ceiling,
    size_ceiling,
    strip_chart,
)

_LEVELS = " ▁▂▃▄▅▆▇█"
_values = st.lists(st.floats(0, 1e6), max_size=50)


def test_the_scale_is_the_given_one_and_the_newest_is_at_the_right() -> None:
    assert strip_chart([0, 4, 8], top=8, width=5) == ["   ▄█"]
    assert strip_chart([4, 4, 4], top=8, width=3) == ["▄▄▄"]  # flat: no noise is made dramatic
    assert strip_chart([1, 2, 3, 8], top=8, width=2) == ["▃█"]
    assert strip_chart([4, 8, 6], top=8, width=3, height=2) == [" █▄", "███"]


@given(_values, st.floats(0, 1e6), st.integers(0, 40), st.integers(1, 4))
def test_strips_have_their_size_whatever_the_values(
    values: list[float], top: float, width: int, height: int
) -> None:
    rows = strip_chart(values, top, width, height)
    assert len(rows) == height
    assert all(len(row) == width and set(row) <= set(_LEVELS) for row in rows)


@given(st.floats(1e-9, 1), st.integers(1, 4))
def test_little_is_not_nothing(value: float, height: int) -> None:
    assert strip_chart([value, 0], 1e6, 2, height)[-1] == "▁ "


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 9)), max_size=20).map(sorted))
def test_each_interval_has_one_value(samples: list[tuple[float, float]]) -> None:
    values = at_intervals(samples, 1.0)
    if samples:
        assert len(values) == int(samples[-1][0] - samples[0][0]) + 1
        assert values[-1] == samples[-1][1]
    else:
        assert values == []


def test_a_gap_holds_the_last_value() -> None:
    assert at_intervals([(10.0, 1.0), (10.5, 2.0), (13.2, 5.0)], 1.0) == [2.0, 2.0, 2.0, 5.0]


@given(st.floats(-1, 2), st.integers(0, 30))
def test_bars_fill_their_width(share: float, width: int) -> None:
    drawn = bar(share, width)
    assert cell_len(drawn) == width
    assert drawn.count("█") == int(round(min(1, max(0, share)) * width * 8) / 8)


@pytest.mark.parametrize(("value", "top"), [(0, 0), (0.3, 0.5), (1, 1), (24.6, 50), (50.1, 100)])
def test_ceilings_of_rates(value: float, top: float) -> None:
    assert ceiling(value) == pytest.approx(top)


@given(st.floats(1e-3, 1e9))
def test_a_ceiling_is_at_or_above_and_not_far(value: float) -> None:
    assert (
        value <= ceiling(value) * (1 + 1e-8) <= value * 5 * (1 + 1e-6)
        or ceiling(value) < 2.6 * value
    )


@given(st.integers(1, 2**50))
def test_a_ceiling_of_bytes_is_a_power_of_two(count: int) -> None:
    top = size_ceiling(count)
    assert top.bit_count() == 1 and count <= top < 2 * count
    assert size_ceiling(0) == 0
