"""Perplexity, KL divergence, Δp and top-1 agreement as llama.cpp defines them, and errors."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.statistics.quality import (
    Divergence,
    Quantity,
    depth_ends,
    divergence,
    passages,
    perplexity,
)
from quantchat.statistics.surprisal import CrossPerplexity

WINDOWS, SCORED = 12, 31


def figures(seed: int = 0) -> dict[str, Any]:
    """What a job writes of two models that read the same tokens."""
    rng = numpy.random.default_rng(seed)
    count = WINDOWS * SCORED
    reference = rng.gamma(1.2, 2.0, count)
    return {
        "reference_nll": reference,
        "nll": numpy.abs(reference + rng.normal(0.1, 0.4, count)),
        "kld": rng.gamma(0.5, 0.1, count),
        "top1_agrees": rng.random(count) < 0.8,
    }


def seen(**more: Any) -> Divergence:
    return divergence(**{**figures(), **more}, windows=WINDOWS)


def mean_and_uncertainty(values: Any) -> tuple[float, float]:
    """As perplexity.cpp has it."""
    count = len(values)
    mean = values.sum() / count
    variance = (values**2).sum() / count - mean**2
    return mean, math.sqrt(variance / (count - 1)) if variance > 0 else 0.0


def near(quantity: Quantity, expected: tuple[float, float]) -> None:
    assert quantity.value == pytest.approx(expected[0], rel=1e-9)
    assert quantity.error == pytest.approx(expected[1], rel=1e-6)


def test_the_figures_and_errors_of_llama_cpp() -> None:
    given_, found = figures(), seen()
    nll, base = given_["nll"], given_["reference_nll"]
    count = len(nll)
    (log_ppl, log_unc), (log_base, base_unc) = map(mean_and_uncertainty, (nll, base))
    covariance = ((nll * base).sum() / count - log_ppl * log_base) / (count - 1)
    near(perplexity(nll, WINDOWS), (math.exp(log_ppl), math.exp(log_ppl) * log_unc))
    ratio_unc = math.sqrt(log_unc**2 + base_unc**2 - 2 * covariance)
    near(found.log_ratio, (log_ppl - log_base, ratio_unc))
    ppl, ppl_base = math.exp(log_ppl), math.exp(log_base)
    difference_unc = math.sqrt(
        (ppl * log_unc) ** 2 + (ppl_base * base_unc) ** 2 - 2 * ppl * ppl_base * covariance
    )
    near(found.perplexity_difference, (ppl - ppl_base, difference_unc))
    near(found.kld_mean, mean_and_uncertainty(given_["kld"]))
    delta_p = numpy.exp(-nll) - numpy.exp(-base)
    near(found.delta_p_mean, mean_and_uncertainty(delta_p))
    square, square_unc = mean_and_uncertainty(delta_p**2)
    near(found.delta_p_rms, (math.sqrt(square), 0.5 / math.sqrt(square) * square_unc))
    share = given_["top1_agrees"].mean()
    near(found.top1_agreement, (share, math.sqrt(share * (1 - share) / (count - 1))))
    assert found.kld_max == given_["kld"].max()


def test_percentiles_are_llama_cpps() -> None:
    values, found = sorted(figures()["kld"]), seen().kld_percentiles
    assert [one.percent for one in found] == [50, 90, 95, 99, 99.9]
    for one in found:
        place = one.percent / 100 * (len(values) - 1)
        below = int(place)
        above = values[min(below + 1, len(values) - 1)]
        expected = (1 - (place - below)) * values[below] + (place - below) * above
        assert one.figure.value == pytest.approx(expected)


def test_the_pairing_is_what_makes_a_small_difference_visible() -> None:
    reference = figures()["reference_nll"]
    found = seen(nll=reference + 0.01, reference_nll=reference)
    assert found.log_ratio.value == pytest.approx(0.01)
    assert found.log_ratio.error == pytest.approx(0, abs=1e-9)
    alone = perplexity(reference, WINDOWS)
    assert alone.error is not None
    assert alone.error > 0.05 * alone.value  # unpaired, 1 % would drown


def test_windows_that_hang_together_widen_the_error() -> None:
    rng = numpy.random.default_rng(3)
    hard = numpy.repeat(rng.gamma(2, 1, WINDOWS), SCORED)  # a window is hard, or it is not
    found = perplexity(hard, WINDOWS)
    assert found.error is not None
    assert found.clustered is not None
    assert found.clustered == pytest.approx(
        found.value * hard.reshape(WINDOWS, -1).mean(axis=1).std(ddof=1) / math.sqrt(WINDOWS)
    )
    assert found.wider == found.clustered > 4 * found.error


@pytest.mark.simulation
def test_the_error_of_a_percentile_is_how_far_it_scatters() -> None:
    rng = numpy.random.default_rng(4)
    scatter, told = [], []
    for _ in range(300):
        kld = rng.exponential(1.0, WINDOWS * SCORED)
        found = seen(kld=kld).kld_percentiles[1].figure
        scatter.append(found.value)
        told.append(found.error or 0.0)
    assert numpy.mean(told) == pytest.approx(numpy.std(scatter), rel=0.15)


def test_a_model_compared_with_itself_is_no_distance_away() -> None:
    nll = figures()["nll"]
    zeros, same = 0 * nll, numpy.ones(len(nll), bool)
    found = divergence(nll=nll, reference_nll=nll, kld=zeros, top1_agrees=same, windows=WINDOWS)
    nothing = Quantity(0.0, 0.0, 0.0)
    assert found.perplexity_difference == found.kld_mean == found.delta_p_rms == nothing
    assert found.top1_agreement == Quantity(1.0, 0.0, 0.0)


def test_one_window_has_no_error_between_windows() -> None:
    found = perplexity(numpy.array([1.0, 2.0]), 1)
    assert found.clustered is None
    assert found.wider == found.error
    assert perplexity(numpy.array([1.0]), 1).wider is None


@given(st.lists(st.floats(0, 50), min_size=2, max_size=60))
def test_perplexity_lies_between_the_easiest_and_the_hardest_token(nll: list[float]) -> None:
    found = perplexity(numpy.array(nll), 1)
    assert math.exp(min(nll)) * (1 - 1e-9) <= found.value <= math.exp(max(nll)) * (1 + 1e-9)


def test_an_answer_that_a_broken_model_holds_impossible_has_a_perplexity_without_bound() -> None:
    assert CrossPerplexity("NF4", [-1000.0, -1000.0]).perplexity == math.inf
    assert CrossPerplexity("NF4", [-1.0, -3.0]).perplexity == pytest.approx(math.exp(2))
    assert CrossPerplexity("NF4").perplexity is None


def test_the_kld_by_depth_is_that_of_each_part_of_the_windows() -> None:
    windows, window = 3, 1000
    ends = depth_ends(1, window)
    assert ends == (1, 128, 512, 1000)
    # One row for each window: the KLD at the tokens 1 to 999; the first is read without context.
    kld = numpy.arange(windows * (window - 1), dtype=float).reshape(windows, window - 1)
    early, scored = kld[:, :500].ravel(), kld[:, 500:].ravel()
    seen = divergence(
        nll=scored * 0,
        reference_nll=scored * 0,
        kld=scored,
        top1_agrees=scored >= 0,
        windows=windows,
        kld_early=early,
        depth_ends=ends,
    )
    expected = [kld[:, a - 1 : b - 1].mean() for a, b in pairwise(ends)]
    assert [part.value for part in seen.kld_by_depth] == pytest.approx(expected)
    assert all(part.clustered is not None for part in seen.kld_by_depth)
    assert seen.kld_mean.value == scored.mean()  # the early tokens count for the depths alone


def test_parts_of_the_depth_double_up_to_the_window() -> None:
    assert depth_ends(1, 4096) == (1, 128, 512, 1024, 2048, 4096)
    assert depth_ends(257, 4096) == (257, 512, 1024, 2048, 4096)
    assert depth_ends(1, 128) == ()  # a single part says nothing
    assert depth_ends(2049, 4096) == ()


def test_a_long_window_is_several_passages() -> None:
    assert (passages(16, 255), passages(2, 2047), passages(3, 7)) == (16, 16, 3)
    noise = numpy.repeat(numpy.random.default_rng(5).normal(0, 1, 64), 256)  # passages of 256
    whole = perplexity(3 + noise, 2).clustered
    assert whole == pytest.approx(perplexity(3 + noise, 64).clustered)
