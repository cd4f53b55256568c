"""Holm's correction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.statistics.multiple import holm

p_values = st.lists(st.floats(0, 1), max_size=8)


def test_a_known_case() -> None:
    # Holm (1979) as R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") has it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(p_values)
def test_between_the_values_and_bonferroni(values: list[float]) -> None:
    for value, adjusted in zip(values, holm(values), strict=True):
        assert value <= adjusted <= min(1.0, value * len(values))


@given(p_values)
def test_the_order_stays(values: list[float]) -> None:
    adjusted = holm(values)
    for a, left in zip(values, adjusted, strict=True):
        for b, right in zip(values, adjusted, strict=True):
            assert not (a < b and left > right)
