"""Latency and throughput of one answer, each figure defined in one place.

All times are nanoseconds of the worker's monotonic clock; `times_ns[i]` is when output token i was
known on the host, `received_ns` when the worker received the prompt (0: not yet known). A figure
that is not defined, as an inter-token latency of a single token is not, is None: never 0, never
infinite.

Other tools define ITL and TPOT each in their own way. Here they are what `vllm bench serve` calls
so: ITL is every single gap, TPOT their mean over one answer. AIPerf's ITL is our TPOT.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_NS_PER_MS = 1e6
_NS_PER_S = 1e9

NOW_WINDOW_S = 1.0
"""How far back "tok/s now" looks, in seconds."""

SERIES_LIMIT = 600
"""Most intervals of a throughput series: more than any terminal has columns."""


def ttft_ms(received_ns: int, times_ns: Sequence[int]) -> float | None:
    """Time to first token, ms: prompt received by the worker → first output token on the host.

    Tokenizing and prefill are part of it, loading the model never is.
    """
    if not received_ns or not times_ns or times_ns[0] < received_ns:
        return None
    return (times_ns[0] - received_ns) / _NS_PER_MS


def itl_ms(times_ns: Sequence[int]) -> list[float]:
    """Inter-token latencies, ms: the n − 1 gaps between one output token and the next."""
    return [(b - a) / _NS_PER_MS for a, b in pairwise(times_ns)]


def tpot_ms(times_ns: Sequence[int], tokens: int | None = None) -> float | None:
    """Time per output token, ms: (last token − first token) ÷ (n − 1).

    n is `tokens` where the times are those of a server's chunks (so has it `vllm bench serve`).
    """
    span_ns, gaps = _span_ns(times_ns), (len(times_ns) if tokens is None else tokens) - 1
    return span_ns / gaps / _NS_PER_MS if span_ns and gaps > 0 else None


def decode_throughput(times_ns: Sequence[int], tokens: int | None = None) -> float | None:
    """Decode throughput, tok/s: 1000 ÷ TPOT. The first token, which prefill made, is not in it."""
    tpot = tpot_ms(times_ns, tokens)
    return 1000 / tpot if tpot else None


def while_both_decode(
    first: Sequence[int], second: Sequence[int]
) -> tuple[Sequence[int], Sequence[int]]:
    """The times of each, ns of one machine's clock, at which the other was decoding as well.

    The shorter answer leaves the device to the longer one, which then is no longer contended. Empty
    where the two did not overlap.
    """
    if not first or not second:
        return (), ()
    begin, end = max(first[0], second[0]), min(first[-1], second[-1])
    shared = [
        times[bisect_left(times, begin) : bisect_right(times, end)] for times in (first, second)
    ]
    return shared[0], shared[1]


def end_to_end_throughput(
    received_ns: int, times_ns: Sequence[int], tokens: int | None = None
) -> float | None:
    """End-to-end throughput, tok/s: n ÷ (prompt received → last token)."""
    if not received_ns or not times_ns or times_ns[-1] <= received_ns:
        return None
    count = len(times_ns) if tokens is None else tokens
    return count * _NS_PER_S / (times_ns[-1] - received_ns) if count > 0 else None


def prefill_throughput(received_ns: int, prefilled_ns: int, computed_tokens: int) -> float | None:
    """Prefill throughput, tok/s: computed prompt tokens ÷ (prompt received → last one computed).

    Tokens taken from a kept KV cache are not computed and do not count.
    """
    if not received_ns or prefilled_ns <= received_ns or computed_tokens <= 0:
        return None
    return computed_tokens * _NS_PER_S / (prefilled_ns - received_ns)


def throughput_now(times_ns: Sequence[int], window_s: float = NOW_WINDOW_S) -> float | None:
    """Decode throughput, tok/s, over the tokens of the last `window_s` before the newest one.

    A model slower than one token a window is judged by its last gap.
    """
    if len(times_ns) < 2:
        return None
    start = bisect_left(times_ns, times_ns[-1] - window_s * _NS_PER_S)
    return decode_throughput(times_ns[min(start, len(times_ns) - 2) :])


def whole_intervals(times_ns: Sequence[int], interval_s: float) -> int:
    """How many whole intervals of `interval_s` there are since the first token."""
    return int((_span_ns(times_ns) or 0) / (interval_s * _NS_PER_S))


def throughput_series(
    times_ns: Sequence[int], interval_s: float, first: int, end: int
) -> list[float]:
    """Throughput, tok/s, in each interval since the first token, from `first` to before `end`.

    Each token is spread evenly over the gap before it. Counting tokens instead would make a steady
    slow model look like a comb, and hide how long a stall lasted; so the mean over the series is
    the decode throughput of the same stretch.
    """
    if end <= first:
        return []
    step_ns = interval_s * _NS_PER_S
    edges = range(first, end + 1)
    known = [_tokens_by(times_ns, times_ns[0] + edge * step_ns) for edge in edges]
    return [(b - a) / interval_s for a, b in pairwise(known)]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Percentile `percent` (0 to 100) with linear interpolation, as numpy's default has it.

    Hyndman & Fan (1996), definition 7. None for no values.
    """
    ordered = sorted(values)
    return _percentile(len(ordered), ordered.__getitem__, percent)


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of the inter-token latency, ms."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles | None:
        """The percentiles of `values`; None where there are none."""
        ordered = sorted(values)
        return cls.by_rank(len(ordered), ordered.__getitem__)

    @classmethod
    def by_rank(cls, count: int, ranked: Callable[[int], float]) -> Percentiles | None:
        """The same, of `count` values of which `ranked(i)` is the i-th smallest, from 0."""
        p50, p95, p99 = (_percentile(count, ranked, percent) for percent in (50, 95, 99))
        if p50 is None or p95 is None or p99 is None:
            return None
        return cls(p50, p95, p99)


@dataclass(frozen=True)
class TurnTiming:
    """Every latency and throughput figure of one answer, finished or growing."""

    output_tokens: int
    """-1 where a server sent chunks and did not count."""
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens taken from the kept KV cache, counted apart from those computed."""
    ttft_ms: float | None
    itl_ms: Percentiles | None
    tpot_ms: float | None
    decode_tok_s: float | None
    end_to_end_tok_s: float | None
    prefill_tok_s: float | None

    @classmethod
    def of(
        cls,
        *,
        received_ns: int,
        times_ns: Sequence[int],
        prompt_tokens: int = 0,
        cached_tokens: int = 0,
        prefilled_ns: int = 0,
        itl: Percentiles | None = None,
        tokens: int | None = None,
    ) -> TurnTiming:
        """Work them out. `prefilled_ns` is when the last prompt token was computed (0: not yet).

        `itl` is for who knows the percentiles of the inter-token latency already. `tokens` is the
        server's count where the times are those of chunks, -1 where it does not count.
        """
        return cls(
            output_tokens=len(times_ns) if tokens is None else tokens,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            ttft_ms=ttft_ms(received_ns, times_ns),
            itl_ms=itl or Percentiles.of(itl_ms(times_ns)),
            tpot_ms=tpot_ms(times_ns, tokens),
            decode_tok_s=decode_throughput(times_ns, tokens),
            end_to_end_tok_s=end_to_end_throughput(received_ns, times_ns, tokens),
            prefill_tok_s=prefill_throughput(
                received_ns, prefilled_ns, prompt_tokens - cached_tokens
            ),
        )


def _span_ns(times_ns: Sequence[int]) -> int | None:
    """From the first token to the last, or None where no time lies between two."""
    if len(times_ns) < 2 or times_ns[-1] <= times_ns[0]:
        return None
    return times_ns[-1] - times_ns[0]


def _tokens_by(times_ns: Sequence[int], at_ns: float) -> float:
    """Tokens after the first that are known by `at_ns`, the one under way as a fraction."""
    after = bisect_right(times_ns, at_ns)
    if after == len(times_ns):
        return after - 1
    gap_ns = times_ns[after] - times_ns[after - 1]
    return after - 1 + (at_ns - times_ns[after - 1]) / gap_ns


def _percentile(count: int, ranked: Callable[[int], float], percent: float) -> float | None:
    if not count:
        return None
    below, fraction = divmod((count - 1) * percent / 100, 1)
    low = ranked(int(below))
    high = ranked(min(int(below) + 1, count - 1))
    return low + (high - low) * fraction
