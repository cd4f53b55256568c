"""The ratio and its interval: unbiased, and wide enough for what the data do not show."""

from __future__ import annotations

import math
import statistics
import tracemalloc

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as scipy_t

from quantchat.statistics.intervals import (
    Pair,
    Row,
    exact_ratio,
    interval_of,
    ratio_of,
    sides_of,
    single_ratio,
    variation,
)

figures = st.floats(0.01, 1e6)
pair_lists = st.lists(
    st.builds(Pair, prompt=st.integers(0, 4), round=st.integers(0, 3), a=figures, b=figures),
    min_size=1,
    max_size=20,
)


@settings(deadline=None)  # the first one imports SciPy
@given(pair_lists)
def test_swapping_sides_inverts_everything(pairs: list[Pair]) -> None:
    there = ratio_of(pairs)
    back = ratio_of([Pair(pair.prompt, pair.round, pair.b, pair.a) for pair in pairs])
    assert there is not None
    assert back is not None
    assert there.value == pytest.approx(1 / back.value)
    assert there.shown == back.shown
    if there.low is not None and back.high is not None:
        assert there.low == pytest.approx(1 / back.high)


@settings(deadline=None)  # the first one imports SciPy
@given(pair_lists, st.floats(0.1, 10))
def test_a_factor_on_b_is_a_factor_on_the_ratio(pairs: list[Pair], factor: float) -> None:
    before = ratio_of(pairs)
    after = ratio_of([Pair(pair.prompt, pair.round, pair.a, pair.b * factor) for pair in pairs])
    assert before is not None
    assert after is not None
    assert after.value == pytest.approx(before.value * factor)


@settings(deadline=None)  # the first one imports SciPy
@given(pair_lists)
def test_the_interval_holds_the_value(pairs: list[Pair]) -> None:
    ratio = ratio_of(pairs)
    assert ratio is not None
    if ratio.low is not None and ratio.high is not None:
        assert ratio.low <= ratio.value * 1.0000001
        assert ratio.value <= ratio.high * 1.0000001


def test_one_pair_has_no_interval_and_shows_nothing() -> None:
    ratio = ratio_of([Pair("p", 1, 1, 2)])
    assert ratio is not None
    assert ratio.value == pytest.approx(2)
    assert ratio.low is None
    assert not ratio.shown


def test_no_pairs_no_ratio() -> None:
    assert ratio_of([]) is None


@pytest.mark.parametrize("figure", [0.0, -1.0, math.nan, math.inf])
def test_a_figure_that_is_no_measurement_is_refused(figure: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ratio_of([Pair("p", 1, 1, figure)])


def test_with_one_prompt_the_rounds_are_the_units() -> None:
    ratio = ratio_of([Pair("p", n, 1, b) for n, b in enumerate([2, 2.1, 1.9])])
    assert ratio is not None
    assert (ratio.clustered_by, ratio.clusters) == ("round", 3)
    assert ratio.shown


def test_many_rounds_of_few_prompts_do_not_feign_certainty() -> None:
    """Three prompts that disagree stay three prompts, however often each is measured."""
    effect = {"x": 0.8, "y": 1.0, "z": 1.3}
    few = ratio_of([Pair(p, 1, 1, e) for p, e in effect.items()])
    many = ratio_of([Pair(p, n, 1, e) for p, e in effect.items() for n in range(50)])
    assert few is not None
    assert many is not None
    assert few.low is not None
    assert many.low == pytest.approx(few.low)


@pytest.mark.simulation
@pytest.mark.parametrize("prompts", [3, 5, 12])
def test_coverage(prompts: int) -> None:
    """Of 300 comparisons without a difference, about 5 % show one: the interval keeps its word.

    Binomial: with a true 5 % more than 30 of 300 would happen once in 10,000 times; the generator
    is seeded, so it does not happen here.
    """
    generator = numpy.random.default_rng(7)
    shown = 0
    for _ in range(300):
        pairs = []
        for prompt in range(prompts):
            own = generator.normal(0, 0.03)
            for number in range(4):
                noise = generator.normal(0, 0.02)
                pairs.append(Pair(prompt, number, 10.0, 10.0 * math.exp(own + noise)))
        ratio = ratio_of(pairs)
        assert ratio is not None
        shown += ratio.shown
    assert 3 <= shown <= 30


def test_an_interval_of_a_statistic_is_that_of_its_ratio() -> None:
    """The mean of log ratios is one statistic; both ways to it agree."""
    generator = numpy.random.default_rng(3)
    sides = [(p, 0, generator.uniform(1, 2), generator.uniform(1, 2)) for p in range(4)]
    ratio = ratio_of([Pair(*side) for side in sides])
    logs = [Row(p, r, (math.log(a), math.log(b))) for p, r, a, b in sides]
    found = interval_of(lambda means: means[1] - means[0], logs)
    assert ratio is not None
    assert ratio.low is not None
    assert (found.clusters, found.clustered_by) == (ratio.clusters, ratio.clustered_by)
    assert math.exp(found.value) == pytest.approx(ratio.value)
    assert found.low == pytest.approx(math.log(ratio.low))


def pauses(generator: numpy.random.Generator, factor: float = 1.0) -> list[Pair]:
    """Five prompts in five rounds, with a pause of the machine in one answer of ten."""

    def answer(time: float) -> float:
        pause = generator.exponential(1.0) if generator.random() < 0.1 else 0.0
        return time * (1 + pause) * math.exp(generator.normal(0, 0.02))

    return [
        Pair(prompt, round_, answer(10.0), answer(10.0 * factor))
        for prompt in range(5)
        for round_ in range(5)
    ]


@pytest.mark.simulation
def test_pauses_of_the_machine_do_not_hide_a_difference() -> None:
    """A true 5 % was shown in 7 of 100 comparisons by a plain mean, and is in most of them now."""
    generator = numpy.random.default_rng(5)
    same = [ratio_of(pauses(generator)) for _ in range(100)]
    other = [ratio_of(pauses(generator, 1.05)) for _ in range(100)]
    assert sum(one.shown for one in same if one) <= 8
    assert sum(one.shown for one in other if one) >= 80
    assert statistics.median(one.high / one.value for one in same if one and one.high) < 1.04


def test_one_pair_moves_the_ratio_little() -> None:
    pairs = [Pair(p, r, 10.0, 10.0 + 0.1 * ((p + r) % 3)) for p in range(5) for r in range(5)]
    before = ratio_of(pairs)
    after = ratio_of([*pairs[:-1], Pair(4, 4, 10.0, 1000.0)])
    assert before is not None
    assert after is not None
    assert after.value == pytest.approx(before.value, rel=0.01)


def test_few_rounds_of_one_prompt_are_averaged_as_they_are() -> None:
    ratio = ratio_of([Pair("p", n, 1, b) for n, b in enumerate([2, 2, 2.1, 20])])
    assert ratio is not None
    assert ratio.value == pytest.approx((2 * 2 * 2.1 * 20) ** 0.25)


@given(pair_lists)
def test_the_sides_have_the_ratio_that_stands_beside_them(pairs: list[Pair]) -> None:
    ratio = ratio_of(pairs)
    assert ratio is not None
    a, b = sides_of(pairs, ratio.value)
    assert b / a == pytest.approx(ratio.value)


def test_an_interval_takes_the_mean_over_prompts_not_over_rounds() -> None:
    rows = [*(Row("x", n, (1.0,)) for n in range(3)), Row("y", 0, (3.0,))]
    assert interval_of(lambda means: means[0], rows).value == pytest.approx(2)


@pytest.mark.simulation
@pytest.mark.parametrize("prompts", [4, 8])
def test_coverage_of_a_difference(prompts: int) -> None:
    """Of 300 intervals of x - 2 y, whose true value is 0, about 95 % hold it."""
    generator = numpy.random.default_rng(11)
    missed = 0
    for _ in range(300):
        rows = [
            Row(prompt, number, (x + generator.normal(0, 1), y + generator.normal(0, 1)))
            for prompt in range(prompts)
            for x, y in [(20 + generator.normal(0, 4), 10 + generator.normal(0, 2))]
            for number in range(3)
        ]
        found = interval_of(lambda means: means[0] - 2 * means[1], rows)
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= 0 <= found.high
    assert 3 <= missed <= 30


@pytest.mark.simulation
@pytest.mark.parametrize(("by_prompt", "by_round"), [(0, 0), (0.05, 0), (0, 0.05), (0.05, 0.05)])
def test_coverage_where_whole_rounds_are_slow(by_prompt: float, by_round: float) -> None:
    """A machine that is slow for a minute is slow for all prompts of the round."""
    generator = numpy.random.default_rng(5)
    shown = by_prompts_alone = 0
    for _ in range(300):
        prompts = generator.normal(0, by_prompt, 5)
        rounds = generator.normal(0, by_round, 5)
        pairs = [
            Pair(p, r, 10.0, 10 * math.exp(prompts[p] + rounds[r] + generator.normal(0, 0.05)))
            for p in range(5)
            for r in range(5)
        ]
        ratio = ratio_of(pairs)
        blind = ratio_of([Pair(pair.prompt, 0, pair.a, pair.b) for pair in pairs])
        assert ratio is not None
        assert blind is not None
        shown += ratio.shown
        by_prompts_alone += blind.shown
    assert shown <= 30
    if by_round > by_prompt:
        assert by_prompts_alone > 60, "clustering by prompt alone would not have been enough"


@pytest.mark.simulation
def test_coverage_of_many_where_prompts_and_rounds_differ() -> None:
    """Both kinds of scatter add up. By either alone, 12 % of such comparisons show a difference.

    Binomial: with a true 5 % more than 16 of 150 would happen once in 700 times.
    """
    generator = numpy.random.default_rng(2)
    shown = by_either = 0
    for _ in range(150):
        prompts, rounds = generator.normal(0, 0.05, (2, 20))
        logs = prompts[:, None] + rounds + generator.normal(0, 0.02, (20, 20))
        ratio = ratio_of(
            [Pair(p, r, 1.0, math.exp(logs[p, r])) for p in range(20) for r in range(20)]
        )
        assert ratio is not None
        shown += ratio.shown
        error = max(logs.mean(axis=axis).std(ddof=1) / math.sqrt(20) for axis in (0, 1))
        by_either += abs(logs.mean()) > 2.093 * error  # t with 19 degrees of freedom
    assert shown <= 16 < by_either


def test_many_pairs_are_compared_in_bounded_memory() -> None:
    generator = numpy.random.default_rng(4)
    pairs = [
        Pair(p, r, 1.0, math.exp(generator.normal(0, 0.1))) for p in range(200) for r in range(15)
    ]
    ratio_of(pairs[:10])  # what is imported for the first one is not its memory
    tracemalloc.start()
    ratio_of(pairs)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * 2**20


def test_what_differs_more_than_the_pairs_is_named() -> None:
    """A small zigzag is the noise of single pairs; it has no part of a prompt or of a round."""

    def sources(by_prompt: float, by_round: float, rounds: int = 5) -> tuple[str, int]:
        noise = numpy.random.default_rng(8).normal(0, 0.01, (5, rounds))
        noise -= noise.mean(axis=0) + noise.mean(axis=1)[:, None] - noise.mean()
        ratio = ratio_of(
            [
                Pair(p, r, 1, math.exp(p * by_prompt + r * by_round + noise[p, r]))
                for p in range(5)
                for r in range(rounds)
            ]
        )
        assert ratio is not None
        return ratio.clustered_by, ratio.clusters

    assert sources(0, 0) == ("pair", 25)
    assert sources(0.1, 0) == ("prompt", 5)
    assert sources(0, 0.1) == ("round", 5)
    assert sources(0.1, 0.1) == ("prompt and round", 5)
    assert sources(0, 0, rounds=3) == ("round", 3)  # three rounds cannot show that they are equal


def test_the_parts_of_the_variance_are_those_of_an_analysis_of_variance() -> None:
    """If neither prompts nor rounds differ, the error is that of independent pairs."""
    noise = numpy.random.default_rng(9).normal(0, 1, (6, 6))
    noise -= noise.mean(axis=0) + noise.mean(axis=1)[:, None] - noise.mean()
    rows = [Row(p, r, (3 + noise[p, r],)) for p in range(6) for r in range(6)]
    found = interval_of(lambda means: means[0], rows)
    assert found.clustered_by == "pair"
    assert found.high is not None
    error = noise.std(ddof=1) / 6
    assert found.high - found.value == pytest.approx(float(scipy_t.ppf(0.975, 35)) * error)


def test_a_quotient_of_means_has_the_error_of_the_jackknife() -> None:
    generator = numpy.random.default_rng(10)
    x, y = generator.normal(10, 1, 12), generator.normal(5, 0.5, 12)
    rows = [Row(n, 0, (float(a), float(b))) for n, (a, b) in enumerate(zip(x, y, strict=True))]
    found = interval_of(lambda means: means[0] / means[1], rows)
    without = [numpy.delete(x, n).mean() / numpy.delete(y, n).mean() for n in range(12)]
    error = math.sqrt(11 * numpy.var(without))
    assert found.high is not None
    assert found.high - found.value == pytest.approx(float(scipy_t.ppf(0.975, 11)) * error)


def test_moved_pairs_cost_degrees_of_freedom_and_width() -> None:
    """20 prompts in one round: Huber's estimate has less to go by than a mean of 20."""
    quiet = [Pair(n, 0, 1, 1 + n / 1000) for n in range(20)]
    odd = [*quiet[:-1], Pair(19, 0, 1, 50.0)]
    before, after = ratio_of(quiet), ratio_of(odd)
    assert before is not None
    assert after is not None
    assert before.high is not None
    assert after.high is not None
    assert before.high / before.value < after.high / after.value < 1.01


def test_no_interval_if_the_statistic_is_not_finite_without_one_prompt() -> None:
    # Without z the mean is 0.
    rows = [Row("x", 1, (2.0,)), Row("y", 1, (-2.0,)), Row("z", 1, (5.0,))]
    found = interval_of(lambda means: 1 / means[0], rows)
    assert (found.low, found.high) == (None, None)
    with pytest.raises(ValueError, match="nothing"):
        interval_of(lambda means: means[0], [])


def test_what_is_no_sample_has_no_interval_of_its_own() -> None:
    counted, read = exact_ratio(4, 5), single_ratio(4, 5)
    assert (counted.value, counted.low, counted.high, counted.shown) == (1.25, 1.25, 1.25, True)
    assert not exact_ratio(4, 4).shown
    assert (read.value, read.low, read.high, read.shown) == (1.25, None, None, False)


def test_variation() -> None:
    values = [9.0, 10.0, 11.0]
    assert variation(values) == pytest.approx(statistics.stdev(values) / 10)
    assert variation([1.0]) is None
    assert variation([0.0, 0.0]) is None


@pytest.mark.simulation
def test_the_detectable_difference_is_shown_in_four_of_five_simulations() -> None:
    generator = numpy.random.default_rng(12)
    noise = [generator.normal(0, 0.05, (6, 1)) for _ in range(400)]
    found = [ratio_of([Pair(n, 0, 1, math.exp(x)) for n, (x,) in enumerate(one)]) for one in noise]
    planned = statistics.median(one.detectable for one in found if one and one.detectable)
    slower = [
        ratio_of([Pair(n, 0, 1, math.exp(x) * (1 + planned)) for n, (x,) in enumerate(one)])
        for one in noise
    ]
    shown = sum(one.shown for one in slower if one) / len(slower)
    assert 0.72 < shown < 0.88


def test_what_has_no_interval_has_no_detectable_difference() -> None:
    one = ratio_of([Pair("p", 1, 1, 2)])
    assert one is not None
    assert one.detectable is None
    assert exact_ratio(4, 5).detectable is None
    wild = ratio_of([Pair("p", 1, 1, 1e-300), Pair("p", 2, 1, 1e300)])
    assert wild is not None
    assert wild.high is not None
    assert math.isfinite(wild.high)
    assert wild.detectable == wild.high
    assert not wild.shown
