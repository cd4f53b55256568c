"""Is B really different from A? A ratio with its interval, or "no difference shown".

Each pair is one prompt in one round, measured on both sides. Ratios are compared as logarithms, so
that twice as fast and twice as slow are equally far from 1. The rounds of one prompt are not
independent of each other, so the unit that is resampled is the prompt (a cluster bootstrap, Field
and Welsh 2007): its pairs are averaged, and the averages are bootstrapped. Neither are the prompts
of one round: a machine that is slow for a minute is slow for all of them. So rounds are resampled
in the same way. And both together, since a ratio may differ from prompt to prompt and from round to
round as well: the variances of the two ways add up, but for that of the single pairs, which is in
both (Cameron, Gelbach and Miller 2011), with the degrees of freedom of such a sum (Satterthwaite
1946). The widest of the three intervals is the one that is given.

A pause of the machine, or another program for some seconds, makes single pairs ten times as slow.
A mean follows them, and its interval grows until it shows nothing. So the ratio is Huber's
M-estimate of the logarithms (Huber 1964): pairs farther than 1.345 robust standard deviations from
the centre count as if they lay there. The intervals are those of its pseudo-values, whose mean is
the estimate. `benchmarks/intervals.py` shows what this does to coverage and width. Few pairs of one
prompt alone, or of one round alone, are averaged as they are (`ROBUST_FROM`).

With few prompts the percentile interval is known to be too narrow (Hesterberg 2015, "What Teachers
Should Know About the Bootstrap"), so each is Student's t, with one degree of freedom less than
there are prompts or rounds, around the bootstrap's standard error, corrected for its small-sample
bias.
"""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

CONFIDENCE = 0.95

RESAMPLES = 2000
"""The standard error is then known to about 1.6 %, which no digit that is shown can tell."""

NUMBERS = 2**21
"""Figures resampled at a time: 16 MiB, and a few times that for what is worked out."""

ROBUST_FROM = 20
"""Pairs of a single prompt, or of a single round, from which on outliers are drawn in. With ten,
Huber's interval held the true ratio in 93 of 100 simulations; pairs of several prompts in several
rounds have the wider of two intervals, which held it in 96 and more, down to two by two."""

HUBER_K = 1.345
"""In robust standard deviations: 95 % as efficient as the mean where the noise is normal."""

SEED = 20230801
"""The resampling is seeded: the same measurements give the same interval."""


@dataclass(frozen=True)
class Pair:
    """One figure measured on both sides for the same prompt in the same round; both above 0."""

    prompt: Hashable
    round: Hashable
    a: float
    b: float


@dataclass(frozen=True)
class Ratio:
    """Ratio of B to A with its interval; `low` and `high` are None where none can be given."""

    value: float
    low: float | None
    high: float | None
    pairs: int
    prompts: int
    clusters: int
    clustered_by: str
    """What was resampled: `prompt`, `round` or `prompt and round`; empty: nothing was sampled."""

    @property
    def shown(self) -> bool:
        """Whether a difference is shown: there is an interval and it does not hold 1."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


class Row(NamedTuple):
    """What was measured on one prompt in one round: the same figures in each row."""

    prompt: Hashable
    round: Hashable
    figures: tuple[float, ...]


@dataclass(frozen=True)
class Interval:
    """A figure of sampled rows; `low` and `high` are None where no interval can be given."""

    value: float
    low: float | None
    high: float | None
    prompts: int
    clusters: int
    clustered_by: str
    """What was resampled: `prompt`, `round` or `prompt and round`."""


Statistic = Callable[[Sequence[Any]], Any]
"""Takes the mean of each figure, as floats or as equally long arrays; returns the same kind."""


def ratio_of(pairs: Sequence[Pair]) -> Ratio | None:
    """Return the typical b / a with its interval, or None where there are no pairs.

    Huber's estimate of the geometric mean, which outliers move little; the geometric mean itself
    where there are too few pairs for that.

    Raises ValueError for figures that are not above 0.
    """
    if not pairs:
        return None
    for pair in pairs:
        if not (pair.a > 0 and pair.b > 0 and math.isfinite(pair.a) and math.isfinite(pair.b)):
            raise ValueError(f"a ratio needs figures above 0, not {pair.a} and {pair.b}")
    logs = _drawn_in(pairs, [math.log(pair.b / pair.a) for pair in pairs])
    rows = [Row(p.prompt, p.round, (value,)) for p, value in zip(pairs, logs, strict=True)]
    log = interval_of(lambda means: means[0], rows)
    return Ratio(
        math.exp(log.value),
        None if log.low is None else math.exp(log.low),
        None if log.high is None else math.exp(log.high),
        len(pairs),
        log.prompts,
        log.clusters,
        log.clustered_by,
    )


def sides_of(pairs: Sequence[Pair], ratio: float) -> tuple[float, float]:
    """Return a typical a and a typical b of `pairs`, whose `ratio` is that of `ratio_of`.

    The geometric mean over the prompts of the median over a prompt's rounds. Means of each side by
    itself would contradict the ratio that stands beside them.
    """
    logs: defaultdict[Hashable, list[float]] = defaultdict(list)
    for pair in pairs:
        logs[pair.prompt].append(math.log(pair.a) / 2 + math.log(pair.b) / 2)
    middle = math.exp(math.fsum(map(median, logs.values())) / len(logs))
    return middle / math.sqrt(ratio), middle * math.sqrt(ratio)


def _drawn_in(pairs: Sequence[Pair], values: list[float]) -> Sequence[float]:
    """Pseudo-values of Huber's M-estimate of location: their mean is the estimate.

    `values`, one of each pair, as they are where `pairs` are too few, or half of them are equal.
    """
    crossed = len({pair.prompt for pair in pairs}) > 1 and len({pair.round for pair in pairs}) > 1
    if not crossed and len(pairs) < ROBUST_FROM:
        return values
    import numpy

    x = numpy.array(values)
    centre = float(numpy.median(x))
    spread = 1.4826 * float(numpy.median(abs(x - centre)))  # that of a normal sample's deviation
    if not spread:
        return values
    for _ in range(50):
        scores = numpy.clip((x - centre) / spread, -HUBER_K, HUBER_K)
        inside = max(float((abs(x - centre) < HUBER_K * spread).mean()), 0.3)
        step = spread * float(scores.mean()) / inside
        centre += step
        if abs(step) < 1e-12 * spread:
            break
    scores = numpy.clip((x - centre) / spread, -HUBER_K, HUBER_K)
    drawn_in: Sequence[float] = (centre + spread * scores / inside).tolist()
    return drawn_in


def exact_ratio(a: float, b: float) -> Ratio:
    """The ratio of two figures that were counted, not sampled: both bounds are the value."""
    return Ratio(b / a, b / a, b / a, 1, 0, 1, "")


def single_ratio(a: float, b: float) -> Ratio:
    """The ratio of two figures that were read once each: nothing tells how far they scatter."""
    return Ratio(b / a, None, None, 1, 0, 1, "")


def interval_of(statistic: Statistic, rows: Sequence[Row]) -> Interval:
    """`statistic` of the mean of each figure over the prompts, with its interval.

    With a single prompt the interval is that of its rounds, and speaks of that prompt alone; with a
    single round it is that of the prompts. There is none for a single row, nor where a resample
    leaves the statistic without a finite value. Raises ValueError for no rows.
    """
    import numpy

    if not rows:
        raise ValueError("nothing was measured")
    prompts = _units((row.prompt, row.figures) for row in rows)
    rounds = _units((row.round, row.figures) for row in rows)
    with numpy.errstate(all="ignore"):  # what is not finite is told by the result
        value = float(statistic(list(prompts.mean(axis=0))))
        found = [
            _Spread(_error(statistic, units), len(units), len(units) - 1, way)
            for way, units in (("prompt", prompts), ("round", rounds))
            if len(units) > 1
        ]
        if len(found) > 1:
            single = numpy.array([row.figures for row in rows])
            by_prompt, by_round = found
            found += _both(by_prompt, by_round, _error(statistic, single))
    if not found:
        return Interval(value, None, None, len(prompts), 1, "prompt")
    margins = [(spread.margin, spread) for spread in found]
    margin, spread = max(margins, key=operator.itemgetter(0))
    low, high = (value - margin, value + margin) if math.isfinite(margin) else (None, None)
    return Interval(value, low, high, len(prompts), spread.clusters, spread.way)


class _Spread(NamedTuple):
    """How far a statistic scatters, seen in one way."""

    error: float
    """Standard error; infinite where it cannot be told."""
    clusters: int
    freedom: float
    """Degrees of freedom of the error."""
    way: str

    @property
    def margin(self) -> float:
        """Half the width of the interval."""
        from scipy import stats

        if not self.error or math.isinf(self.error):
            return self.error
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom) * self.error)


def _both(prompt: _Spread, round_: _Spread, single: float) -> Iterator[_Spread]:
    """Both ways at once, where that is more than either; `single` is the error by single rows."""
    by_prompt, by_round = prompt.error**2, round_.error**2
    variance = by_prompt + by_round - single**2
    if math.isfinite(variance) and variance > max(by_prompt, by_round):
        freedom = (by_prompt + by_round) ** 2 / (
            by_prompt**2 / prompt.freedom + by_round**2 / round_.freedom
        )
        clusters = min(prompt.clusters, round_.clusters)
        yield _Spread(math.sqrt(variance), clusters, freedom, "prompt and round")


def _units(rows: Iterable[tuple[Hashable, tuple[float, ...]]]) -> Any:
    """The mean of each figure in each cluster: an array of clusters by figures."""
    import numpy

    clusters: defaultdict[Hashable, list[tuple[float, ...]]] = defaultdict(list)
    for cluster, figures in rows:
        clusters[cluster].append(figures)
    return numpy.array([numpy.mean(members, axis=0) for members in clusters.values()])


def _error(statistic: Statistic, units: Any) -> float:
    """Standard error of `statistic` by resampling `units`; infinite where it cannot be told."""
    import numpy
    from scipy import stats

    count = len(units)
    if (units == units[0]).all():
        return 0.0  # nothing varies, and SciPy would warn of a degenerate distribution
    error = float(
        stats.bootstrap(
            tuple(units.T),
            lambda *resampled, axis: statistic([figure.mean(axis=axis) for figure in resampled]),
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, NUMBERS // count),
            method="basic",
            rng=numpy.random.default_rng(SEED),
        ).standard_error
    )
    # Resampling n values has the variance of n, not n - 1, degrees of freedom.
    return error * math.sqrt(count / (count - 1)) if math.isfinite(error) else math.inf


def variation(values: Iterable[float]) -> float | None:
    """Coefficient of variation: standard deviation (n - 1) over mean. None for fewer than two."""
    found = list(values)
    if len(found) < 2:
        return None
    mean = math.fsum(found) / len(found)
    if mean == 0:
        return None
    return math.sqrt(math.fsum((v - mean) ** 2 for v in found) / (len(found) - 1)) / abs(mean)
