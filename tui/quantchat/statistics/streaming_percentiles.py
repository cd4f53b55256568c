"""Figures of a running answer; the cost per token does not grow with the answer's length."""

from __future__ import annotations

from collections.abc import Sequence

from quantchat.statistics.latency import (
    SERIES_LIMIT,
    Percentiles,
    itl_ms,
    throughput_series,
    whole_intervals,
)

_RECENT = 256
_SHARE = 16
"""New values are merged into the sorted list once there are more of them than `_RECENT` and than
1/`_SHARE` of the list's length. So a merge moves at most about `_SHARE` old values for each new
one."""


class StreamingPercentiles:
    """Percentiles of all values so far, exactly equal to those of `Percentiles.of`."""

    def __init__(self) -> None:
        self._sorted: list[float] = []
        self._recent: list[float] = []

    def add(self, values: Sequence[float]) -> None:
        """Add `values`, in any order."""
        self._recent.extend(values)
        self._recent.sort()
        if len(self._recent) > max(_RECENT, len(self._sorted) // _SHARE):
            self._sorted += self._recent
            self._sorted.sort()  # two sorted runs: sorting merges them in one pass
            self._recent = []

    def now(self) -> Percentiles | None:
        """Return the percentiles; None if there are no values yet."""
        return Percentiles.by_rank(len(self._sorted) + len(self._recent), self._ranked)

    def _ranked(self, rank: int) -> float:
        """Return the value with this rank, from 0, of all values in both lists."""
        # Find by bisection how many of the `rank + 1` smallest values are in `_recent`.
        low, high = max(0, rank + 1 - len(self._sorted)), min(rank + 1, len(self._recent))
        while low < high:
            middle = (low + high) // 2
            if self._recent[middle] < self._sorted[rank - middle]:
                low = middle + 1
            else:
                high = middle
        among = rank + 1 - low
        last = []
        if low:
            last.append(self._recent[low - 1])
        if among:
            last.append(self._sorted[among - 1])
        return max(last)


class StreamingTiming:
    """ITL percentiles and throughput series of one answer, updated as its token times arrive."""

    def __init__(self, interval_s: float) -> None:
        """Start without times. `interval_s` is the interval of the throughput series in seconds."""
        self._interval_s = interval_s
        self._percentiles = StreamingPercentiles()
        self._counted = 0
        self._intervals = 0
        self.series: list[float] = []
        """Throughput in tok/s of each whole interval so far; only the last `SERIES_LIMIT`."""

    def follow(self, times_ns: Sequence[int]) -> Percentiles | None:
        """Add the times that `times_ns` has since the last call; return ITL percentiles in ms."""
        if len(times_ns) > self._counted:
            self._percentiles.add(itl_ms(times_ns[max(0, self._counted - 1) :]))
            self._counted = len(times_ns)
            whole = whole_intervals(times_ns, self._interval_s)
            first = max(self._intervals, whole - SERIES_LIMIT)
            self.series += throughput_series(times_ns, self._interval_s, first, whole)
            del self.series[:-SERIES_LIMIT]
            self._intervals = whole
        return self._percentiles.now()
