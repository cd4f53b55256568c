"""Flips: counts, paired error and exact test, compared with other ways to compute them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.statistics.flips import Flips

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(PAIRS)
def test_rerunst_the_definitions(pairs: list[tuple[bool, bool]]) -> None:
    before, now = zip(*pairs, strict=True)
    seen = Flips.between(before, now)
    differences = [int(b) - int(a) for a, b in pairs]
    count, mean = len(pairs), sum(differences) / len(pairs)
    variance = sum((one - mean) ** 2 for one in differences) / count
    assert seen.difference == pytest.approx(mean)
    assert seen.error == pytest.approx(math.sqrt(variance / count))
    changed = seen.lost + seen.gained
    rarer = min(seen.lost, seen.gained)
    tail = sum(math.comb(changed, n) for n in range(rarer + 1)) / 2**changed
    assert seen.p == pytest.approx(min(1.0, 2 * tail))


@given(PAIRS)
def test_the_other_way_round(pairs: list[tuple[bool, bool]]) -> None:
    before, now = zip(*pairs, strict=True)
    there, back = Flips.between(before, now), Flips.between(now, before)
    assert (there.lost, there.gained) == (back.gained, back.lost)
    assert there.p == pytest.approx(back.p)
    assert there.difference == -back.difference


def test_words_of_noughts_and_ones() -> None:
    assert Flips.between("0011", "0110") == Flips(4, lost=1, gained=1)
    assert Flips(100, lost=0, gained=6).p == pytest.approx(2 / 2**6)


@pytest.mark.parametrize(("before", "now"), [("", ""), ("01", "0")])
def test_what_is_no_pair(before: str, now: str) -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        Flips.between(before, now)


def test_the_interval_has_a_width_without_any_change() -> None:
    few, many = Flips(20, 0, 0), Flips(2000, 0, 0)
    assert few.difference == few.centre == 0
    assert few.interval[0] < -0.05 < -0.002 < many.interval[0] < 0


@given(st.integers(1, 500), st.integers(0, 500), st.integers(0, 500))
def test_the_interval_contains_the_difference_and_what_is_detectable_is_wider(
    documents: int, lost: int, gained: int
) -> None:
    lost, gained = min(lost, documents), min(gained, documents - min(lost, documents))
    seen = Flips(documents, lost, gained)
    low, high = seen.interval
    assert low - 0.02 <= seen.difference <= high + 0.02
    assert seen.detectable == pytest.approx(seen.margin * 2.8016 / 1.96, rel=1e-3)


def test_the_detectable_difference_is_found_in_four_of_five_simulations() -> None:
    import numpy

    generator, documents, changed = numpy.random.default_rng(3), 1000, 0.10
    planned = Flips(documents, int(changed * documents / 2), int(changed * documents / 2))
    effect = planned.detectable
    shares = [(changed + effect) / 2, (changed - effect) / 2, 1 - changed]
    drawn = generator.multinomial(documents, shares, size=2000)
    found = sum(Flips(documents, int(a), int(b)).interval[1] < 0 for a, b, _ in drawn)
    assert 0.77 < found / 2000 < 0.84
