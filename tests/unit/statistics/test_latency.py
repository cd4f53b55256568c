"""Latency figures: against numpy, against values worked out by hand, and where undefined."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.statistics import latency
from quantchat.statistics.latency import Percentiles, TurnTiming

MS = 1_000_000

gaps_ns = st.lists(st.integers(1, 10**10), min_size=1, max_size=80)


def times_after(start: int, gaps: list[int]) -> list[int]:
    return list(accumulate(gaps, initial=start))


def series(times_ns: list[int], interval_s: float) -> list[float]:
    whole = latency.whole_intervals(times_ns, interval_s)
    return latency.throughput_series(times_ns, interval_s, 0, whole)


def test_a_worked_example() -> None:
    # Prompt at 5 ms, prefill done at 25 ms, tokens at 30, 40, 60 and 70 ms.
    timing = TurnTiming.of(
        received_ns=5 * MS,
        prefilled_ns=25 * MS,
        times_ns=[30 * MS, 40 * MS, 60 * MS, 70 * MS],
        prompt_tokens=50,
        cached_tokens=10,
    )
    assert (timing.output_tokens, timing.prompt_tokens, timing.cached_tokens) == (4, 50, 10)
    assert timing.ttft_ms == 25.0
    assert timing.itl_ms is not None
    assert timing.itl_ms.p50 == 10.0
    assert timing.itl_ms.p95 == pytest.approx(19.0)
    assert timing.itl_ms.p99 == pytest.approx(19.8)
    assert timing.tpot_ms == pytest.approx(40 / 3)
    assert timing.decode_tok_s == pytest.approx(75.0)
    assert timing.end_to_end_tok_s == pytest.approx(4 / 0.065)
    assert timing.prefill_tok_s == pytest.approx(40 / 0.020)


def test_before_the_first_token_nothing_is_defined() -> None:
    timing = TurnTiming.of(received_ns=1, times_ns=[], prompt_tokens=3)
    assert timing == TurnTiming(0, 3, 0, None, None, None, None, None, None)


def test_one_token_has_a_ttft_but_no_decode_speed() -> None:
    timing = TurnTiming.of(received_ns=MS, times_ns=[3 * MS])
    assert timing.ttft_ms == 2.0
    assert timing.end_to_end_tok_s == pytest.approx(500.0)
    assert timing.itl_ms is None
    assert timing.tpot_ms is None
    assert timing.decode_tok_s is None
    assert latency.throughput_now([3 * MS]) is None
    assert series([3 * MS], 0.1) == []


def test_an_unknown_start_gives_no_figure_that_needs_it() -> None:
    timing = TurnTiming.of(received_ns=0, times_ns=[5 * MS, 6 * MS], prefilled_ns=4 * MS)
    assert timing.ttft_ms is None
    assert timing.end_to_end_tok_s is None
    assert timing.prefill_tok_s is None
    assert timing.decode_tok_s == pytest.approx(1000.0)


def test_tokens_at_the_same_instant_give_no_infinite_speed() -> None:
    assert latency.decode_throughput([7, 7]) is None
    assert latency.throughput_now([2_000 * MS, 2_000 * MS]) is None
    assert series([7, 7], 1.0) == []
    assert latency.end_to_end_throughput(7, [7]) is None


def test_tokens_that_arrive_together_have_no_latency_between_them() -> None:
    """A draft gives several tokens at once: the gaps are those between arrivals."""
    times = [0, 0, 40 * MS, 40 * MS, 40 * MS, 100 * MS]
    assert latency.itl_ms(times) == [40, 60]
    assert latency.tpot_ms(times) == 20
    slow = [0, 2_000 * MS, 2_000 * MS]  # slower than the window: the last gap counts, of two tokens
    assert latency.throughput_now(slow) == pytest.approx(1)


def test_a_prompt_wholly_from_the_cache_has_no_prefill_throughput() -> None:
    assert latency.prefill_throughput(MS, 2 * MS, 0) is None


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60), st.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], percent: float) -> None:
    ours = latency.percentile(values, percent)
    assert ours == pytest.approx(float(np.percentile(values, percent)), rel=1e-9, abs=1e-9)


def test_no_values_have_no_percentile() -> None:
    assert latency.percentile([], 50) is None
    assert Percentiles.of([]) is None


@given(st.integers(1, 10**15), st.integers(0, 10**10), gaps_ns)
def test_the_figures_hang_together(received: int, prefill: int, gaps: list[int]) -> None:
    times = times_after(received + prefill, gaps)
    timing = TurnTiming.of(received_ns=received, times_ns=times)
    assert timing.ttft_ms is not None
    assert timing.tpot_ms is not None
    assert timing.decode_tok_s is not None
    itl = latency.itl_ms(times)
    assert len(itl) == len(times) - 1
    # TPOT is the mean of ITL; decode throughput its inverse.
    assert timing.tpot_ms == pytest.approx(float(np.mean(itl)))
    assert timing.decode_tok_s * timing.tpot_ms == pytest.approx(1000)
    # n tokens end to end take the TTFT and n − 1 times the TPOT.
    total_ms = timing.ttft_ms + timing.tpot_ms * len(itl)
    assert timing.end_to_end_tok_s == pytest.approx(len(times) * 1000 / total_ms)


@given(gaps_ns, st.floats(0.001, 100))
def test_speed_now_is_that_of_the_tokens_within_the_window(
    gaps: list[int], window_s: float
) -> None:
    times = times_after(0, gaps)
    inside = [t for t in times if t >= times[-1] - window_s * 1e9]
    if len(inside) < 2:
        inside = times[-2:]
    assert latency.throughput_now(times, window_s) == latency.decode_throughput(inside)


def test_speed_now_forgets_an_old_stall() -> None:
    times = [0, 10_000 * MS, 10_010 * MS, 10_020 * MS]
    assert latency.throughput_now(times, 1.0) == pytest.approx(100.0)


def test_a_steady_slow_model_draws_a_level_line() -> None:
    times = [i * 2_000 * MS for i in range(4)]  # half a token a second
    assert series(times, 0.5) == pytest.approx([0.5] * 12)


def test_a_stall_is_as_long_in_the_series_as_it_was() -> None:
    times = [0, 500 * MS, 1_000 * MS, 5_000 * MS]
    assert series(times, 1.0) == pytest.approx([2.0, 0.25, 0.25, 0.25, 0.25])


@given(gaps_ns, st.integers(1, 200))
def test_the_series_loses_no_token(gaps: list[int], parts: int) -> None:
    times = times_after(0, gaps)
    interval_s = times[-1] / 1e9 / parts
    found = series(times, interval_s)
    # The last interval may be one short where the division rounds down.
    assert parts - 1 <= len(found) <= parts
    assert all(value >= 0 and math.isfinite(value) for value in found)
    if len(found) == parts:
        assert sum(found) * interval_s == pytest.approx(len(gaps))


def test_a_part_of_a_series_is_that_of_the_whole() -> None:
    times = [*range(0, 100 * MS, MS), 100 * MS, 102 * MS, 104 * MS]
    whole = series(times, 0.001)
    part = latency.throughput_series(times, 0.001, len(whole) - 10, len(whole))
    assert part == pytest.approx(whole[-10:])
    assert whole[-1] == pytest.approx(500.0)


def test_only_what_overlaps_is_contended() -> None:
    # The second goes on alone, at twice the speed, once the first is done.
    first = [0, 40 * MS, 80 * MS]
    second = [10 * MS, 50 * MS, 90 * MS, 110 * MS, 130 * MS, 150 * MS]
    mine, theirs = latency.while_both_decode(first, second)
    assert (list(mine), list(theirs)) == ([40 * MS, 80 * MS], [10 * MS, 50 * MS])
    assert latency.decode_throughput(mine) == latency.decode_throughput(theirs) == 25
    assert latency.decode_throughput(second) == pytest.approx(1000 / 28)
    assert latency.while_both_decode(first, []) == ((), ())


@given(gaps_ns, gaps_ns, st.integers(-(10**11), 10**11))
def test_what_overlaps_is_cut_alike_whichever_comes_first(
    gaps: list[int], others: list[int], later: int
) -> None:
    first, second = times_after(0, gaps), times_after(later, others)
    mine, theirs = latency.while_both_decode(first, second)
    assert (theirs, mine) == latency.while_both_decode(second, first)
    assert {*mine} == {t for t in first if second[0] <= t <= second[-1]}
    assert {*theirs} == {t for t in second if first[0] <= t <= first[-1]}
