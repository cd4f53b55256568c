"""Flips: counts, paired error and exact test, compared with other ways to compute them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.statistics.flips import Flips, design_effect

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
    questions: int, lost: int, gained: int
) -> None:
    lost, gained = min(lost, questions), min(gained, questions - min(lost, questions))
    seen = Flips(questions, lost, gained)
    low, high = seen.interval
    assert low - 0.02 <= seen.difference <= high + 0.02
    assert seen.detectable == pytest.approx(seen.margin * 2.8016 / 1.96, rel=1e-3)


def test_the_detectable_difference_is_found_in_four_of_five_simulations() -> None:
    import numpy

    generator, questions, changed = numpy.random.default_rng(3), 1000, 0.10
    planned = Flips(questions, int(changed * questions / 2), int(changed * questions / 2))
    effect = planned.detectable
    shares = [(changed + effect) / 2, (changed - effect) / 2, 1 - changed]
    drawn = generator.multinomial(questions, shares, size=2000)
    found = sum(Flips(questions, int(a), int(b)).interval[1] < 0 for a, b, _ in drawn)
    assert 0.77 < found / 2000 < 0.84


# ------------------------------------------------------------ questions about one passage


def in_passages(
    generator: Any, passages: int, each: int
) -> tuple[list[bool], list[bool], list[int]]:
    """Answers of two equal models, each of which misreads whole passages."""
    names = [number for number in range(passages) for _ in range(each)]
    misread = generator.random((2, passages)) < 0.2
    sides = [[bool(~misread[side, name] & (generator.random() < 0.9)) for name in names]
             for side in (0, 1)]  # fmt: skip
    return sides[0], sides[1], names


def test_questions_about_one_passage_count_as_one() -> None:
    """Ten copies of each question say no more than one copy does."""
    before, now = "1100101100" * 3, "1010100101" * 3
    once = Flips.between(before, now)
    names = [number for number in range(30) for _ in range(10)]
    tenfold = Flips.between(
        [letter for letter in before for _ in range(10)],
        [letter for letter in now for _ in range(10)],
        names,
    )
    assert (tenfold.questions, tenfold.clusters) == (300, 30)
    assert tenfold.difference == pytest.approx(once.difference)
    assert tenfold.error == pytest.approx(once.error * math.sqrt(30 / 29))  # G ÷ (G - 1)
    assert tenfold.p == pytest.approx(once.p)
    assert tenfold.detectable > 0.9 * once.detectable
    alone = Flips.between(before * 10, now * 10)
    assert alone.p < 0.2 * tenfold.p or alone.p == tenfold.p == 1


def test_without_shared_passages_nothing_changes() -> None:
    before, now = "110010110011", "101010010111"
    assert Flips.between(before, now, range(12)).p == Flips.between(before, now).p
    assert Flips.between(before, now, range(12)).margin == Flips(12, 2, 2).margin
    together = Flips.together([Flips.between("10", "01", [7, 7]), Flips.between("11", "10")])
    assert (together.questions, together.clusters, together.lost, together.gained) == (4, 3, 2, 1)


@pytest.mark.simulation
def test_models_that_misread_whole_passages_are_seldom_told_apart() -> None:
    """Two equal models: with questions as units 20 % of comparisons would show a difference."""
    import numpy

    generator = numpy.random.default_rng(4)
    by_passage = by_document = outside = 0
    for _ in range(300):
        before, now, names = in_passages(generator, 40, 5)
        seen = Flips.between(before, now, names)
        by_passage += seen.p < 0.05
        by_document += Flips(seen.questions, seen.lost, seen.gained).p < 0.05
        outside += not seen.interval[0] <= 0 <= seen.interval[1]
    assert by_passage <= 24
    assert outside <= 24
    assert by_document > 45


def test_the_randomization_test_counts_all_ways_to_swap_the_models() -> None:
    seen = Flips.between("11111110", "00000000", [0, 0, 0, 0, 1, 1, 2, 3])
    nets = (4, 2, 1)
    ways = [sum(n * s for n, s in zip(nets, signs, strict=True)) for signs in SIGNS]
    assert seen.p == sum(abs(one) >= 7 for one in ways) / len(ways) == 2 / 8


SIGNS = list(itertools.product((-1, 1), repeat=3))


def test_the_design_effect_is_at_least_one() -> None:
    assert design_effect([(2, 1)] * 10, 10) == 1.0  # each passage has one right and one wrong
    assert design_effect([(5, 0), (5, 5)] * 10, 50) == pytest.approx(5 * 20 / 19)
    assert design_effect([(3, 3)] * 4, 12) == 1.0  # nothing varies
