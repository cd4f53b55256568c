"""Figures updated with each token equal those of the whole answer, for any chunks."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.statistics import streaming_percentiles
from quantchat.statistics.latency import Percentiles, itl_ms, throughput_series, whole_intervals
from quantchat.statistics.streaming_percentiles import StreamingPercentiles, StreamingTiming

batches = st.lists(st.lists(st.floats(0, 1e6), max_size=40), max_size=20)


@pytest.fixture(autouse=True)
def soon_sorted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_percentiles, "_RECENT", 4)


@given(batches)
def test_percentiles_after_each_batch(batches: list[list[float]]) -> None:
    grown = StreamingPercentiles()
    for count in range(1, len(batches) + 1):
        grown.add(batches[count - 1])
        assert grown.now() == Percentiles.of([one for batch in batches[:count] for one in batch])


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=200), st.integers(1, 50))
def test_timing_after_each_batch(gaps: list[int], at_once: int) -> None:
    times = list(accumulate(gaps, initial=5))
    grown = StreamingTiming(0.5)
    for end in range(at_once, len(times) + at_once, at_once):
        found = grown.follow(times[:end])
        assert found == Percentiles.of(itl_ms(times[:end]))
        whole = whole_intervals(times[:end], 0.5)
        assert grown.series == pytest.approx(throughput_series(times[:end], 0.5, 0, whole))


def test_the_series_keeps_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_percentiles, "SERIES_LIMIT", 10)
    times = [10**8 * n for n in range(400)]
    grown = StreamingTiming(0.5)
    for end in (100, 101, 400):
        grown.follow(times[:end])
    whole = whole_intervals(times, 0.5)
    assert grown.series == pytest.approx(throughput_series(times, 0.5, whole - 10, whole))
