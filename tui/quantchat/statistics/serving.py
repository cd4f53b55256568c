"""Figures of many requests at once: throughput, latencies, goodput, and the knee of the throughput.

The definitions are those of vLLM's `bench serve` and of AIPerf: the duration of a round is from
sending its first request to the end of its last one; output throughput is the number of output
tokens of all answered requests ÷ this duration; TTFT is from sending a request to its first chunk;
TPOT is (last chunk − first chunk) ÷ (tokens − 1), which AIPerf calls inter-token latency. ITL is
the gap between two chunks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from quantchat.statistics.intervals import Interval, Row, interval_of
from quantchat.statistics.latency import Percentiles, percentile
from quantchat.wire.jobs import BatchRound, RequestTimes

_NS_PER_MS, _NS_PER_S = 1e6, 1e9

NEAR_HIGHEST = 0.9
"""The knee is the lowest load level with at least this share of the highest output throughput."""


def ttft_ms(request: RequestTimes) -> float:
    """Return the time in ms to the first chunk. The request must have been answered."""
    return (request.chunks_ns[0] - request.sent_ns) / _NS_PER_MS


def end_to_end_ms(request: RequestTimes) -> float:
    """Return the time in ms from sending the request to its last chunk."""
    return (request.chunks_ns[-1] - request.sent_ns) / _NS_PER_MS


def itl_ms(request: RequestTimes) -> list[float]:
    """Return the gaps between chunks in ms."""
    return [(later - earlier) / _NS_PER_MS for earlier, later in pairwise(request.chunks_ns)]


def tpot_ms(request: RequestTimes) -> float | None:
    """Return the mean time in ms of each token after the first; None for a single token."""
    if request.output_tokens < 2:
        return None
    span = request.chunks_ns[-1] - request.chunks_ns[0]
    return span / _NS_PER_MS / (request.output_tokens - 1)


def of_batch(batch: BatchRound) -> list[RequestTimes]:
    """Return the prompts of `batch` as requests that were sent at once; empty if it failed."""
    if batch.failure:
        return []
    times = [batch.prefill_ns]
    for step in batch.steps_ns:
        times.append(times[-1] + step)
    return [
        RequestTimes(0, 0, times, times[-1], tokens, len(times)) for tokens in batch.prompt_tokens
    ]


# ------------------------------------------------------------ limits (SLO)


@dataclass(frozen=True)
class Limit:
    """An upper limit on a latency of each request (a service level objective)."""

    text: str
    """The limit as the user wrote it, without spaces at its ends."""
    value: float
    """Upper limit in ms."""
    read: Callable[[RequestTimes], float | None]
    """Returns the latency in ms; None if it is undefined, as the ITL of a single token is."""
    inclusive: bool = False
    """Whether a latency equal to the upper limit meets it (`<=`)."""

    def holds(self, request: RequestTimes) -> bool:
        """Return whether `request` was answered within the limit."""
        if request.error:
            return False
        latency = self.read(request)
        if latency is None:
            return True
        return latency <= self.value if self.inclusive else latency < self.value


_LIMIT = re.compile(r"(ttft_ms|tpot_ms|e2e_ms|itl_ms)(?:\.p(\d{1,2}))? *(<=?) *(\d+(?:\.\d*)?)")
_LATENCIES: dict[str, Callable[[RequestTimes], float | None]] = {
    "ttft_ms": ttft_ms,
    "tpot_ms": tpot_ms,
    "e2e_ms": end_to_end_ms,
}


def limits(text: str) -> tuple[Limit, ...]:
    """Return the limits in `text`, such as `ttft_ms < 500, itl_ms.p95 < 50`.

    Raises ValueError, with what is wrong and an example.
    """
    return tuple(_limit(part.strip()) for part in text.split(",")) if text.strip() else ()


def _limit(text: str) -> Limit:
    found = _LIMIT.fullmatch(text)
    example = "for example ttft_ms < 500, itl_ms.p95 < 50"
    if found is None:
        names = "ttft_ms, tpot_ms, itl_ms.pNN, e2e_ms"
        raise ValueError(f"{text!r} is not a limit on one of {names}: {example}")
    name, percent, comparison, value = found.groups()
    if (name == "itl_ms") != (percent is not None):
        raise ValueError(f"{text!r}: only itl_ms has a percentile, and needs one: {example}")
    if percent is None:
        read = _LATENCIES[name]
    else:
        read = lambda one: percentile(itl_ms(one), float(percent))  # noqa: E731
    return Limit(text, float(value), read, inclusive=comparison == "<=")


# ------------------------------------------------------------ a level


@dataclass(frozen=True)
class LevelFigures:
    """The figures of one load level (a `LoadTestLevel` or a batch size) over all its rounds.

    Intervals are over rounds, in tok/s or 1/s. Percentiles are over all answered requests, in ms.
    """

    requests: int
    failed: int
    output_tps: Interval
    requests_per_s: Interval
    goodput_per_s: Interval | None
    """Goodput: answered requests per second that met all limits; None without limits."""
    ttft_ms: Percentiles | None
    itl_ms: Percentiles | None
    tpot_ms: Percentiles | None
    e2e_ms: Percentiles | None
    output_tokens: float
    """Mean length of an answer in tokens."""


def level_figures(
    rounds: Sequence[Sequence[RequestTimes]], limits: Sequence[Limit] = ()
) -> LevelFigures | None:
    """Return the figures of the rounds of one level; None if no request was answered."""
    answered = [[one for one in times if not one.error] for times in rounds]
    every = [one for times in answered for one in times]
    if not every:
        return None
    seconds = [_seconds(times) for times in rounds]
    tokens = [sum(one.output_tokens for one in times) for times in answered]
    met = [sum(all(limit.holds(one) for limit in limits) for one in times) for times in answered]
    tpots = [value for one in every if (value := tpot_ms(one)) is not None]
    return LevelFigures(
        requests=sum(map(len, rounds)),
        failed=sum(map(len, rounds)) - len(every),
        output_tps=_rate(tokens, seconds),
        requests_per_s=_rate([len(times) for times in answered], seconds),
        goodput_per_s=_rate(met, seconds) if limits else None,
        ttft_ms=Percentiles.of([ttft_ms(one) for one in every]),
        itl_ms=Percentiles.of([gap for one in every for gap in itl_ms(one)]),
        tpot_ms=Percentiles.of(tpots),
        e2e_ms=Percentiles.of([end_to_end_ms(one) for one in every]),
        output_tokens=sum(tokens) / len(every),
    )


def output_tps(times: Sequence[RequestTimes]) -> float:
    """Return the output throughput of one round in tok/s."""
    return sum(one.output_tokens for one in times if not one.error) / _seconds(times)


def _seconds(times: Sequence[RequestTimes]) -> float:
    first, last = min(one.sent_ns for one in times), max(one.ended_ns for one in times)
    return max(last - first, 1) / _NS_PER_S


def _rate(counts: Sequence[int], seconds: Sequence[float]) -> Interval:
    pairs = enumerate(zip(counts, seconds, strict=True))
    return interval_of(
        lambda means: means[0],
        [Row("level", number, (count / duration,)) for number, (count, duration) in pairs],
    )


def knee(throughputs: Sequence[float]) -> int | None:
    """Return the index of the knee (see `NEAR_HIGHEST`); None for fewer than 3 load levels.

    `throughputs` has the output throughput of each load level, in the order of rising load. Above
    the knee, additional requests mostly just wait longer.
    """
    if len(throughputs) < 3:
        return None
    threshold = NEAR_HIGHEST * max(throughputs)
    return next(place for place, value in enumerate(throughputs) if value >= threshold)
