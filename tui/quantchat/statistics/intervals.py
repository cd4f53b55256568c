"""Compares B with A: a ratio with its confidence interval, or "no difference shown".

Each pair is one prompt in one round, measured on both sides. Ratios are averaged as logarithms, so
that twice as fast and twice as slow are equally far from 1.

The interval has to allow for three dependences. The rounds of one prompt depend on each other, so
prompts are resampled (a cluster bootstrap, Field and Welsh 2007): the pairs of each prompt are
averaged, and the averages are bootstrapped. The prompts of one round depend on each other as well,
because a machine that is slow for a minute is slow for all of them, so rounds are resampled in the
same way. And a ratio may differ both from prompt to prompt and from round to round: then the two
variances are added, and the variance of single pairs, which both contain, is subtracted (Cameron,
Gelbach and Miller 2011); the sum has Satterthwaite's (1946) degrees of freedom. The widest of the
three intervals is reported.

A pause of the machine, or another program that runs for some seconds, makes single pairs ten times
as slow. A mean follows such outliers, and its interval grows until it shows nothing. So the ratio
is Huber's M-estimate of the logarithms (Huber 1964): pairs farther than 1.345 robust standard
deviations from the centre are moved to that distance. The intervals are those of the estimate's
pseudo-values, whose mean is the estimate. `benchmarks/intervals.py` measures what this does to
coverage and width. A few pairs of a single prompt, or of a single round, are averaged as they are
(`ROBUST_FROM`).

With few prompts the percentile interval is known to be too narrow (Hesterberg 2015, "What Teachers
Should Know About the Bootstrap"). So each interval is Student's t, with one degree of freedom less
than there are prompts or rounds, times the bootstrap's standard error, corrected for its
small-sample bias.
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
"""Bootstrap resamples. They give the standard error to about 1.6 %, finer than any digit shown."""

NUMBERS = 2**21
"""Figures resampled at a time: 16 MiB, and a few times that for intermediate results."""

ROBUST_FROM = 20
"""Fewest pairs of a single prompt, or of a single round, to which Huber's estimate is applied. With
ten, its interval contained the true ratio in 93 of 100 simulations. Pairs of several prompts in
several rounds get the widest of three intervals, which contained it in 96 and more, down to two
prompts by two rounds."""

HUBER_K = 1.345
"""Huber's k in robust standard deviations: 95 % of the mean's efficiency under normal noise."""

SEED = 20230801
"""Seed of the resampling, so that the same measurements give the same interval."""


@dataclass(frozen=True)
class Pair:
    """One figure measured on both sides for the same prompt in the same round; both above 0."""

    prompt: Hashable
    round: Hashable
    a: float
    b: float


@dataclass(frozen=True)
class Ratio:
    """Ratio of B to A with its interval; `low` and `high` are None if there is no interval."""

    value: float
    low: float | None
    high: float | None
    pairs: int
    prompts: int
    clusters: int
    clustered_by: str
    """What was resampled: `prompt`, `round` or `prompt and round`; empty if nothing was sampled."""
    p: float | None = None
    """Two-sided p-value of a ratio of 1; None if there is no interval."""

    @property
    def shown(self) -> bool:
        """Whether a difference is shown: there is an interval and it does not contain 1."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


class Row(NamedTuple):
    """The figures measured on one prompt in one round; all rows have the same figures."""

    prompt: Hashable
    round: Hashable
    figures: tuple[float, ...]


@dataclass(frozen=True)
class Interval:
    """A statistic of sampled rows; `low` and `high` are None if there is no interval."""

    value: float
    low: float | None
    high: float | None
    prompts: int
    clusters: int
    clustered_by: str
    """What was resampled: `prompt`, `round` or `prompt and round`."""
    p: float | None = None
    """Two-sided p-value of a statistic of 0; None if there is no interval."""


Statistic = Callable[[Sequence[Any]], Any]
"""A function of each figure's mean, as floats or equally long arrays; returns the same kind."""


def ratio_of(pairs: Sequence[Pair]) -> Ratio | None:
    """Return the typical b / a with its interval, or None if there are no pairs.

    Huber's estimate of the geometric mean, on which outliers have little effect; the geometric mean
    itself if there are too few pairs for that. Raises ValueError for figures that are not above 0.
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
        log.p,
    )


def sides_of(pairs: Sequence[Pair], ratio: float) -> tuple[float, float]:
    """Return a typical a and a typical b of `pairs`, whose `ratio` comes from `ratio_of`.

    Their common level is the geometric mean over the prompts of the median over a prompt's rounds.
    Each side's own mean could contradict the ratio that is printed beside it.
    """
    logs: defaultdict[Hashable, list[float]] = defaultdict(list)
    for pair in pairs:
        logs[pair.prompt].append(math.log(pair.a) / 2 + math.log(pair.b) / 2)
    middle = math.exp(math.fsum(map(median, logs.values())) / len(logs))
    return middle / math.sqrt(ratio), middle * math.sqrt(ratio)


def _drawn_in(pairs: Sequence[Pair], values: list[float]) -> Sequence[float]:
    """Return the pseudo-values of Huber's M-estimate of location: their mean is the estimate.

    `values` has one value for each pair. It is returned unchanged if there are too few pairs, or if
    at least half of the values are equal.
    """
    crossed = len({pair.prompt for pair in pairs}) > 1 and len({pair.round for pair in pairs}) > 1
    if not crossed and len(pairs) < ROBUST_FROM:
        return values
    import numpy

    x = numpy.array(values)
    centre = float(numpy.median(x))
    spread = 1.4826 * float(numpy.median(abs(x - centre)))  # estimates a normal sample's deviation
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
    """Return the ratio of two figures that were counted, not sampled: both bounds are the value."""
    return Ratio(b / a, b / a, b / a, 1, 0, 1, "")


def single_ratio(a: float, b: float) -> Ratio:
    """Return the ratio of two figures that were read once each: it has no interval."""
    return Ratio(b / a, None, None, 1, 0, 1, "")


def interval_of(statistic: Statistic, rows: Sequence[Row]) -> Interval:
    """Return `statistic` of the mean of each figure over the prompts, with its interval.

    With a single prompt the interval is that of its rounds, and is valid for that prompt only; with
    a single round it is that of the prompts. A single row has no interval, nor has a statistic that
    is not finite for some resample. Raises ValueError if there are no rows.
    """
    import numpy

    if not rows:
        raise ValueError("nothing was measured")
    prompts = _units((row.prompt, row.figures) for row in rows)
    rounds = _units((row.round, row.figures) for row in rows)
    with numpy.errstate(all="ignore"):  # a result that is not finite shows it
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
    if not math.isfinite(margin):
        return Interval(value, None, None, len(prompts), spread.clusters, spread.way)
    p = max(one.p_value(value) for one in found)
    ends = value - margin, value + margin
    return Interval(value, *ends, len(prompts), spread.clusters, spread.way, p)


class _Spread(NamedTuple):
    """The spread of a statistic when it is resampled in one way."""

    error: float
    """Standard error; infinite if it cannot be computed."""
    clusters: int
    freedom: float
    """Degrees of freedom of the standard error."""
    way: str
    """What was resampled: `prompt`, `round` or `prompt and round`."""

    @property
    def margin(self) -> float:
        """Half the width of the interval."""
        from scipy import stats

        if not self.error or math.isinf(self.error):
            return self.error
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom) * self.error)

    def p_value(self, value: float) -> float:
        """Return the two-sided p-value of 0 for an estimate of `value`."""
        from scipy import stats

        if not self.error:
            return 0.0 if value else 1.0
        return float(2 * stats.t.sf(abs(value) / self.error, self.freedom))


def _both(prompt: _Spread, round_: _Spread, single: float) -> Iterator[_Spread]:
    """Yield the two-way spread if it exceeds both; `single` is the standard error by rows."""
    by_prompt, by_round = prompt.error**2, round_.error**2
    variance = by_prompt + by_round - single**2
    if math.isfinite(variance) and variance > max(by_prompt, by_round):
        freedom = (by_prompt + by_round) ** 2 / (
            by_prompt**2 / prompt.freedom + by_round**2 / round_.freedom
        )
        clusters = min(prompt.clusters, round_.clusters)
        yield _Spread(math.sqrt(variance), clusters, freedom, "prompt and round")


def _units(rows: Iterable[tuple[Hashable, tuple[float, ...]]]) -> Any:
    """Return the mean of each figure in each cluster: an array of clusters by figures."""
    import numpy

    clusters: defaultdict[Hashable, list[tuple[float, ...]]] = defaultdict(list)
    for cluster, figures in rows:
        clusters[cluster].append(figures)
    return numpy.array([numpy.mean(members, axis=0) for members in clusters.values()])


def _error(statistic: Statistic, units: Any) -> float:
    """Return the bootstrap's standard error of `statistic` over `units`, infinite if not finite."""
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
    """Return the coefficient of variation: standard deviation (n - 1) over mean.

    None for fewer than two values, and for a mean of 0.
    """
    found = list(values)
    if len(found) < 2:
        return None
    mean = math.fsum(found) / len(found)
    if mean == 0:
        return None
    return math.sqrt(math.fsum((v - mean) ** 2 for v in found) / (len(found) - 1)) / abs(mean)
