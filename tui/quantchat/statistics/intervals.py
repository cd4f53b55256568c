"""Compares B with A: a ratio with its confidence interval, or "no difference shown".

Each pair is one prompt in one round, measured on both sides. Ratios are averaged as logarithms, so
that twice as fast and twice as slow are equally far from 1.

The interval has to allow for two dependences. The rounds of one prompt depend on each other,
because a ratio may differ from prompt to prompt. The prompts of one round depend on each other,
because a machine that is slow for a minute is slow for all of them. So the variance has three
parts: prompts, rounds, and single pairs (a two-way analysis of variance with random effects). If
prompts differ no more than the pairs of one prompt do, their part is pooled with that of the pairs,
and likewise for rounds (pooling after a preliminary test: Bancroft 1944, Paull 1950;
`_pooled_above` returns the threshold). If one of the two is pooled, the other alone gives the
interval; if both are, the pairs give it. If neither is pooled, their variances are added (Cameron,
Gelbach and Miller 2011), with Satterthwaite's (1946) degrees of freedom, and the interval is at
least as wide as with prompts alone and with rounds alone. `benchmarks/intervals.py` measures how
often the interval contains the true ratio.

A pause of the machine, or another program that runs for some seconds, makes single pairs ten times
as slow. A mean follows such outliers, and its interval grows until it shows nothing. So the ratio
is Huber's M-estimate of the logarithms (Huber 1964): pairs farther than 1.345 robust standard
deviations from the centre are moved to that distance. To compute the interval, each pair is
replaced by a pseudo-value. The mean of the pseudo-values is the estimate. They include Huber's
(1981) correction for small samples. If each pair is a unit by itself (a single prompt, or a single
round), each moved pair costs one degree of freedom (as for a trimmed mean: Tukey and McLaughlin
1963). If there are then fewer than `ROBUST_FROM` pairs, the plain mean is used.

The ends of each interval are the estimate ± Student's t times the standard error. For a statistic
of several figures, such as a quotient of means, the error comes from leaving out one prompt, round
or pair at a time (the jackknife: Efron and Stein 1981); for a mean that is the usual standard
error.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

CONFIDENCE = 0.95

ROBUST_FROM = 20
"""Fewest pairs for which Huber's estimate is used if there is a single prompt or a single round.
With only ten, its 95 % interval contained the true ratio in just 93 of 100 simulations."""

POWER = 0.8
"""Probability with which a measurement shows a difference of the size `detectable`."""

HUBER_K = 1.345
"""Huber's k in robust standard deviations. With normal noise, this k has 95 % of the efficiency of
the mean."""

POOLED_ABOVE = {1: 0.5, 2: 0.5, 3: 0.35}
"""Degrees of freedom of the prompts (or rounds) → threshold. The prompts (or rounds) are pooled
with the pairs if the p-value of their F test is above the threshold. It is far above 0.05, because
pooling by mistake makes the interval too narrow, while not pooling by mistake makes it only
somewhat too wide."""

POOLED_ABOVE_MANY = 0.25
"""Threshold for more degrees of freedom than in `POOLED_ABOVE` (advised by Bozivich, Bancroft and
Hartley 1956)."""

FEW = 2
"""Prompts or rounds, whichever are fewer, are never pooled if they have at most this many degrees
of freedom: two or three of them cannot show that prompts, or rounds, do not differ."""


@dataclass(frozen=True)
class Pair:
    """One figure of the sides A and B, for the same prompt and round; `a` and `b` are above 0."""

    prompt: Hashable
    round: Hashable
    a: float
    b: float


@dataclass(frozen=True)
class Ratio:
    """Ratio of B to A with its interval; `low` and `high` are None if there is no interval."""

    value: float
    """B ÷ A."""
    low: float | None
    high: float | None
    pairs: int
    """Number of pairs."""
    prompts: int
    """Number of different prompts."""
    clusters: int
    """Number of units in `clustered_by`; for `prompt and round` the smaller of the two numbers."""
    clustered_by: str
    """Units whose variance gives the interval: `prompt`, `round`, `prompt and round` or `pair`;
    empty if nothing is sampled."""
    p: float | None = None
    """Two-sided p-value of a true ratio of 1; None if there is no interval."""
    detectable: float | None = None
    """The smallest true difference (0.05 means B is 5 % above A) that such a measurement shows with
    the probability `POWER`; None if there is no interval."""

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
    """A statistic of sampled rows with its interval; `low` and `high` are None if there is none."""

    value: float
    low: float | None
    high: float | None
    prompts: int
    clusters: int
    """Number of units in `clustered_by`, as in `Ratio`."""
    clustered_by: str
    """Units whose variance gives the interval: `prompt`, `round`, `prompt and round` or `pair`."""
    p: float | None = None
    """Two-sided p-value of a true value of 0; None if there is no interval."""
    detectable: float | None = None
    """The smallest true value that such a measurement distinguishes from 0 with the probability
    `POWER`; None if there is no interval."""


Statistic = Callable[[Sequence[Any]], Any]
"""Computes a statistic from the mean of each figure, in the order of `Row.figures`. Each mean is a
float. Or all means are arrays of the same length; then the result is an array of this length."""


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
    logs, moved = _pseudo_values(pairs, [math.log(pair.b / pair.a) for pair in pairs])
    rows = [Row(p.prompt, p.round, (value,)) for p, value in zip(pairs, logs, strict=True)]
    log = interval_of(lambda means: means[0], rows, moved=moved)
    return Ratio(
        _exp(log.value),
        None if log.low is None else _exp(log.low),
        None if log.high is None else _exp(log.high),
        len(pairs),
        log.prompts,
        log.clusters,
        log.clustered_by,
        log.p,
        None if log.detectable is None else _exp(log.detectable) - 1,
    )


def _exp(log: float) -> float:
    """Return e^log, or the largest float if that overflows, as the end of a huge interval may."""
    try:
        return math.exp(log)
    except OverflowError:
        return sys.float_info.max  # JSON has no infinity


def sides_of(pairs: Sequence[Pair], ratio: float) -> tuple[float, float]:
    """Return a typical a and a typical b of `pairs`, whose `ratio` comes from `ratio_of`.

    The middle of a and b is √(a·b): its median over the rounds of each prompt, then the geometric
    mean over prompts. The result is this middle ÷ √ratio and × √ratio, so b ÷ a is the ratio. The
    means of each side alone could contradict the ratio that is printed beside them.
    """
    logs: defaultdict[Hashable, list[float]] = defaultdict(list)
    for pair in pairs:
        logs[pair.prompt].append(math.log(pair.a) / 2 + math.log(pair.b) / 2)
    middle = math.exp(math.fsum(map(median, logs.values())) / len(logs))
    return middle / math.sqrt(ratio), middle * math.sqrt(ratio)


def _pseudo_values(pairs: Sequence[Pair], values: list[float]) -> tuple[Sequence[float], int]:
    """Return the pseudo-values of Huber's M-estimate of location, and how many were moved.

    The mean of the pseudo-values is the estimate. `values` has one value for each pair. The values
    are returned unchanged if there are too few pairs, or if at least half of the values are equal.
    """
    crossed = len({pair.prompt for pair in pairs}) > 1 and len({pair.round for pair in pairs}) > 1
    if not crossed and len(pairs) < ROBUST_FROM:
        return values, 0
    import numpy

    x = numpy.array(values)
    centre = float(numpy.median(x))
    spread = 1.4826 * float(numpy.median(abs(x - centre)))  # the standard deviation, if normal
    if not spread:
        return values, 0
    for _ in range(50):
        scores = numpy.clip((x - centre) / spread, -HUBER_K, HUBER_K)
        inside = max(float((abs(x - centre) < HUBER_K * spread).mean()), 0.3)
        step = spread * float(scores.mean()) / inside
        centre += step
        if abs(step) < 1e-12 * spread:
            break
    scores = numpy.clip((x - centre) / spread, -HUBER_K, HUBER_K)
    small = 1 + (1 - inside) / (inside * len(x))  # Huber's K for a small sample
    drawn_in: Sequence[float] = (centre + small * spread * scores / inside).tolist()
    return drawn_in, round((1 - inside) * len(x))


def exact_ratio(a: float, b: float) -> Ratio:
    """Return the ratio of two figures that were counted, not sampled: both bounds are the value."""
    return Ratio(b / a, b / a, b / a, 1, 0, 1, "")


def single_ratio(a: float, b: float) -> Ratio:
    """Return the ratio of two figures that were measured once each: it has no interval."""
    return Ratio(b / a, None, None, 1, 0, 1, "")


def interval_of(statistic: Statistic, rows: Sequence[Row], *, moved: int = 0) -> Interval:
    """Return `statistic` of each figure's mean over the prompts, with its interval.

    `moved` is the number of rows that are pseudo-values of outliers. There is no interval for a
    single row, or if leaving out a prompt, round or row makes the statistic infinite or NaN. Raises
    ValueError without rows.
    """
    import numpy

    if not rows:
        raise ValueError("nothing was measured")
    prompts = _units((row.prompt, row.figures) for row in rows)
    rounds = _units((row.round, row.figures) for row in rows)
    with numpy.errstate(all="ignore"):  # an invalid operation gives a result that is not finite
        value = float(statistic(list(prompts.mean(axis=0))))
        found = [
            _Spread(_error(statistic, units), len(units), len(units) - 1, way)
            for way, units in (("prompt", prompts), ("round", rounds))
            if len(units) > 1
        ]
        if len(found) > 1:
            single = numpy.array([row.figures for row in rows])
            pairs = _Spread(_error(statistic, single), len(rows), len(rows) - 1, "pair")
            spread = _crossed(found[0], found[1], pairs)
        elif found:
            spread = found[0]
            if spread.clusters == len(rows):
                # Each row is a unit, so each moved row costs a degree of freedom.
                spread = spread._replace(freedom=max(1, spread.freedom - moved))
        else:
            return Interval(value, None, None, len(prompts), 1, "prompt")
    margin = spread.margin
    if not math.isfinite(margin):
        return Interval(value, None, None, len(prompts), spread.clusters, spread.way)
    ends = value - margin, value + margin
    return Interval(
        value,
        *ends,
        len(prompts),
        spread.clusters,
        spread.way,
        spread.p_value(value),
        spread.detectable,
    )


class _Spread(NamedTuple):
    """The spread of a statistic over units of one kind: prompts, rounds or pairs."""

    error: float
    """Standard error; infinite if it cannot be computed."""
    clusters: int
    """Number of units."""
    freedom: float
    """Degrees of freedom of the standard error."""
    way: str
    """The kind of units: `prompt`, `round`, `prompt and round` or `pair`."""

    @property
    def margin(self) -> float:
        """Half the width of the interval."""
        from scipy.special import stdtrit  # Student's t quantile; scipy.stats takes long to import

        if not self.error or math.isinf(self.error):
            return self.error
        return float(stdtrit(self.freedom, (1 + CONFIDENCE) / 2) * self.error)

    @property
    def detectable(self) -> float:
        """The smallest true value that is distinguished from 0 with the probability `POWER`."""
        from scipy.special import stdtrit

        return self.margin + float(stdtrit(self.freedom, POWER)) * self.error

    def p_value(self, value: float) -> float:
        """Return the two-sided p-value of a true value of 0, given the estimate `value`."""
        from scipy.special import stdtr

        if not self.error:
            return 0.0 if value else 1.0
        return float(2 * stdtr(self.freedom, -abs(value) / self.error))


def _crossed(prompt: _Spread, round_: _Spread, pair: _Spread) -> _Spread:
    """Combine the spreads over prompts and over rounds; `pair` is that over pairs as units."""
    if not all(math.isfinite(one.error) for one in (prompt, round_, pair)):
        return pair._replace(error=math.inf)
    squares = [one.error**2 * one.freedom for one in (pair, prompt, round_)]
    rest, freedom = squares[0] - squares[1] - squares[2], pair.freedom
    freedom -= prompt.freedom + round_.freedom
    # If some pairs are missing, the sums of squares do not quite add up, and `rest` may be below 0.
    within = _Spread(math.sqrt(max(0.0, rest) / max(1, freedom)), 0, max(1, freedom), "pair")
    sources = [
        one
        for one, other in ((prompt, round_), (round_, prompt))
        if _is_source(one, within, _pooled_above(one, other))
    ]
    for one in (prompt, round_):
        if one not in sources:
            both = within.freedom + one.freedom
            variance = within.error**2 * within.freedom + one.error**2 * one.freedom
            within = within._replace(error=math.sqrt(variance / both), freedom=both)
    if not sources:
        return within._replace(clusters=pair.clusters)
    if len(sources) == 1:
        return sources[0]
    parts = [one.error**2 for one in (prompt, round_, within)]
    variance = max(parts[0] + parts[1] - parts[2], parts[0], parts[1])
    terms = zip(parts, (prompt, round_, within), strict=True)
    satterthwaite = math.fsum(part**2 / one.freedom for part, one in terms)
    clusters = min(prompt.clusters, round_.clusters)
    freedom = max(1.0, variance**2 / satterthwaite) if satterthwaite else 1.0
    added = _Spread(math.sqrt(variance), clusters, freedom, "prompt and round")
    return max(added, prompt, round_, key=lambda one: one.margin)


def _pooled_above(one: _Spread, other: _Spread) -> float:
    """Return the p-value above which prompts or rounds (`one`) are pooled; 1 means never."""
    if one.freedom <= FEW and one.freedom < other.freedom:
        return 1.0
    return POOLED_ABOVE.get(round(one.freedom), POOLED_ABOVE_MANY)


def _is_source(one: _Spread, within: _Spread, most: float) -> bool:
    """Return whether prompts or rounds (`one`) differ more than pairs (`within`), p <= `most`."""
    from scipy.special import fdtrc  # the upper tail of the F distribution

    if most >= 1 or not within.error:
        return most >= 1 or one.error > 0
    return bool(fdtrc(one.freedom, within.freedom, one.error**2 / within.error**2) <= most)


def _units(rows: Iterable[tuple[Hashable, tuple[float, ...]]]) -> Any:
    """Return the mean of each figure in each cluster, shape (clusters, figures).

    The first item of each row names its cluster, i.e. its prompt or round.
    """
    import numpy

    clusters: defaultdict[Hashable, list[tuple[float, ...]]] = defaultdict(list)
    for cluster, figures in rows:
        clusters[cluster].append(figures)
    return numpy.array([numpy.mean(members, axis=0) for members in clusters.values()])


def _error(statistic: Statistic, units: Any) -> float:
    """Return the jackknife's standard error of `statistic`; infinite if it cannot be computed.

    `units` has the shape (units, figures).
    """
    import numpy

    count = len(units)
    if (units == units[0]).all():
        return 0.0  # otherwise rounding errors would count as spread
    others = (units.sum(axis=0) - units) / (count - 1)
    values = numpy.asarray(statistic(list(others.T)), dtype=float)
    error = math.sqrt((count - 1) / count * float(((values - values.mean()) ** 2).sum()))
    return error if math.isfinite(error) else math.inf


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
