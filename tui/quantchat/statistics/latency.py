"""Latency and throughput of one answer. Each figure is defined once, here.

All times are nanoseconds of the worker's monotonic clock. `times_ns[i]` is when output token i was
known on the host, `received_ns` when the worker received the prompt (0: not yet known). A figure
that is undefined, such as the inter-token latency of a single token, is None: never 0, never
infinite.

Tools differ in their definitions of ITL and TPOT. Here they are those of `vllm bench serve`: ITL is
each single gap, TPOT the mean gap of one answer. What AIPerf calls ITL is called TPOT here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_NS_PER_MS = 1e6
_NS_PER_S = 1e9

NOW_WINDOW_S = 1.0
"""Length of the window of "tok/s now", in seconds."""

SERIES_LIMIT = 600
"""Largest number of intervals in a throughput series: more than any terminal has columns."""


def ttft_ms(received_ns: int, times_ns: Sequence[int]) -> float | None:
    """Return the TTFT in ms: prompt received by the worker → first output token on the host.

    It includes tokenizing and prefill, and never the loading of the model. None if unknown.
    """
    if not received_ns or not times_ns or times_ns[0] < received_ns:
        return None
    return (times_ns[0] - received_ns) / _NS_PER_MS


def ttfa_ms(received_ns: int, times_ns: Sequence[int], first: int) -> float | None:
    """Return the TTFA in ms: prompt received by the worker → first token of the answer on the host.

    `first` is the index of that token, with which the text after the model's thoughts begins. (For
    TTFT, the thoughts count as part of the answer.) None if unknown, or if the answer has not
    begun.
    """
    if not 0 <= first < len(times_ns):
        return None
    return ttft_ms(received_ns, times_ns[first:])


def itl_ms(times_ns: Sequence[int]) -> list[float]:
    """Return the inter-token latencies in ms: the gaps between consecutive output tokens.

    Tokens with equal times arrived together (after a draft, or in one chunk of a server): there is
    no gap between them, so none is returned.
    """
    return [(b - a) / _NS_PER_MS for a, b in pairwise(times_ns) if b > a]


def tpot_ms(times_ns: Sequence[int], tokens: int | None = None) -> float | None:
    """Return the TPOT in ms: (last token − first token) ÷ (n − 1). None if it is undefined.

    n is the length of `times_ns`. If these are the times of a server's chunks, n is `tokens`, the
    number of tokens in all chunks (as in `vllm bench serve`).
    """
    span_ns, gaps = _span_ns(times_ns), (len(times_ns) if tokens is None else tokens) - 1
    return span_ns / gaps / _NS_PER_MS if span_ns and gaps > 0 else None


def decode_throughput(times_ns: Sequence[int], tokens: int | None = None) -> float | None:
    """Return the decode throughput in tok/s: 1000 ÷ TPOT. It excludes the first token (prefill)."""
    tpot = tpot_ms(times_ns, tokens)
    return 1000 / tpot if tpot else None


def while_both_decode(
    first: Sequence[int], second: Sequence[int]
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the token times of each answer while the other answer was decoding as well.

    Before and after that time, one answer has the device for itself, so its times show no
    contention. All times are ns of one clock. Empty if the answers did not overlap in time.
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
    """Return the end-to-end throughput in tok/s: n ÷ (prompt received → last token).

    n is the length of `times_ns`, or `tokens` for the times of a server's chunks. None if
    undefined.
    """
    if not received_ns or not times_ns or times_ns[-1] <= received_ns:
        return None
    count = len(times_ns) if tokens is None else tokens
    return count * _NS_PER_S / (times_ns[-1] - received_ns) if count > 0 else None


def prefill_throughput(received_ns: int, prefilled_ns: int, computed_tokens: int) -> float | None:
    """Return the prefill throughput in tok/s: computed prompt tokens ÷ prefill time.

    The prefill time is from receiving the prompt to computing its last token. Prompt tokens that
    were already in the KV cache are not computed and do not count.
    """
    if not received_ns or prefilled_ns <= received_ns or computed_tokens <= 0:
        return None
    return computed_tokens * _NS_PER_S / (prefilled_ns - received_ns)


def throughput_now(times_ns: Sequence[int], window_s: float = NOW_WINDOW_S) -> float | None:
    """Return the decode throughput in tok/s over a window that ends at the newest token.

    The window is `window_s` seconds long, or as long as the last gap if that is longer.
    """
    if len(times_ns) < 2:
        return None
    start = bisect_left(times_ns, times_ns[-1] - window_s * _NS_PER_S)
    before_last = bisect_left(times_ns, times_ns[-1]) - 1
    return decode_throughput(times_ns[max(0, min(start, before_last)) :])


def whole_intervals(times_ns: Sequence[int], interval_s: float) -> int:
    """Return the number of whole intervals of `interval_s` seconds from first to last token."""
    return int((_span_ns(times_ns) or 0) / (interval_s * _NS_PER_S))


def throughput_series(
    times_ns: Sequence[int], interval_s: float, first: int, end: int
) -> list[float]:
    """Return the throughput in tok/s of the intervals `first` to `end` (exclusive).

    Each interval has `interval_s` seconds; interval 0 starts at the first token. Each token is
    spread evenly over the gap before it. Counting whole tokens would make a steady slow model look
    like a comb, and would hide how long a stall lasted. The mean of the series is the decode
    throughput of the same span, unless further tokens arrived together with the first one.
    """
    if end <= first:
        return []
    step_ns = interval_s * _NS_PER_S
    edges = range(first, end + 1)
    known = [_tokens_by(times_ns, times_ns[0] + edge * step_ns) for edge in edges]
    return [(b - a) / interval_s for a, b in pairwise(known)]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the percentile `percent` (0 to 100) with linear interpolation, numpy's default.

    Hyndman & Fan (1996), definition 7. None for no values.
    """
    ordered = sorted(values)
    return _percentile(len(ordered), ordered.__getitem__, percent)


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of a latency in ms, usually the inter-token latency."""

    p50: float
    """The median."""
    p95: float
    """The value that 95 % of the values do not exceed."""
    p99: float
    """The value that 99 % of the values do not exceed."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles | None:
        """Return the percentiles of `values`; None if there are no values."""
        ordered = sorted(values)
        return cls.by_rank(len(ordered), ordered.__getitem__)

    @classmethod
    def by_rank(cls, count: int, ranked: Callable[[int], float]) -> Percentiles | None:
        """Return the percentiles of `count` values; `ranked(i)` is the i-th smallest, from 0."""
        p50, p95, p99 = (_percentile(count, ranked, percent) for percent in (50, 95, 99))
        if p50 is None or p95 is None or p99 is None:
            return None
        return cls(p50, p95, p99)


@dataclass(frozen=True)
class TurnTiming:
    """All latency and throughput figures of one answer, finished or still running.

    A figure is None if it is undefined or not known.
    """

    output_tokens: int
    """Tokens of the answer and the thoughts; -1 if a server sent chunks and no count."""
    prompt_tokens: int
    """Tokens of the prompt, including cached tokens; 0 if not known."""
    cached_tokens: int
    """Prompt tokens that were already in the KV cache, and so were not computed."""
    ttft_ms: float | None
    """Time to first token: prompt received by the worker → first output token, in ms."""
    itl_ms: Percentiles | None
    """Percentiles of the gaps between consecutive tokens (or a server's chunks), in ms."""
    tpot_ms: float | None
    """Time per output token: (last token − first token) ÷ (tokens − 1), in ms."""
    decode_tok_s: float | None
    """Decode throughput in tok/s: 1000 ÷ `tpot_ms`."""
    end_to_end_tok_s: float | None
    """Output tokens ÷ (prompt received → last token), in tok/s."""
    prefill_tok_s: float | None
    """Computed prompt tokens ÷ (prompt received → last prompt token computed), in tok/s."""
    ttfa_ms: float | None = None
    """Time to the first token of the answer, in ms; `ttft_ms` if the model did not think first."""

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
        first_answer_token: int = 0,
    ) -> TurnTiming:
        """Compute the figures.

        `prefilled_ns` is when the last prompt token was computed (0: not yet). `itl` is given if
        the ITL percentiles are already computed. `tokens` is the server's count of output tokens if
        the times are those of chunks, -1 if the server reports no count; None otherwise.
        `first_answer_token` is the index of the first token after the model's thoughts, -1 if there
        is none yet.
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
            ttfa_ms=ttfa_ms(received_ns, times_ns, first_answer_token),
        )


def _span_ns(times_ns: Sequence[int]) -> int | None:
    """Return the time from the first token to the last in ns; None if it is not above 0."""
    if len(times_ns) < 2 or times_ns[-1] <= times_ns[0]:
        return None
    return times_ns[-1] - times_ns[0]


def _tokens_by(times_ns: Sequence[int], at_ns: float) -> float:
    """Return how many tokens after the first arrived by `at_ns`, plus a fraction of the next."""
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
