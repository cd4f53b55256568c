"""How far one model's forecasts are from another's, over the scored tokens of a text.

The definitions are those of llama.cpp's `llama-perplexity --kl-divergence` (`kl_divergence` in
tools/perplexity/perplexity.cpp): perplexity, the KL divergence KL(reference ‖ variant) in nats, Δp,
the difference of the two probabilities of the token that really came, its root mean square, and
how often both find the same token likeliest. So are the standard errors `Quantity.error`, in which
each token counts as independent, and those of perplexity by propagation (the delta method); the
error of a difference of perplexities is paired, since both models read the same tokens.

Tokens of one window are not quite independent: a passage that is hard is hard for a while. So
`Quantity.clustered` takes the windows as units (a cluster-robust error: Cameron and Miller 2015).
A percentile's error is half the interval between the percentiles one standard error of the
proportion to either side (Woodruff 1952).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]

KLD_PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
DELTA_P_PERCENTILES = (0.1, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class Quantity:
    """A figure with its standard errors; None where it cannot be told."""

    value: float
    error: float | None
    """With each token as a unit."""
    clustered: float | None
    """With each window as a unit; None for fewer than two."""

    @property
    def wider(self) -> float | None:
        """The larger of the two."""
        known = [error for error in (self.error, self.clustered) if error is not None]
        return max(known, default=None)


@dataclass(frozen=True)
class Percentile:
    """A percentile with its errors."""

    percent: float
    figure: Quantity


@dataclass(frozen=True)
class Divergence:
    """One model seen from another, the reference. Probabilities are from 0 to 1, KLD in nats."""

    log_ratio: Quantity
    """ln(perplexity ÷ the reference's), paired."""
    perplexity_difference: Quantity
    """Perplexity minus the reference's, paired."""
    kld_mean: Quantity
    kld_percentiles: list[Percentile]
    kld_max: float
    delta_p_mean: Quantity
    delta_p_rms: Quantity
    delta_p_percentiles: list[Percentile]
    same_top: Quantity
    """Share of tokens before which both find the same token likeliest."""


def perplexity(nll: Values, windows: int) -> Quantity:
    """Of the negative log-likelihoods `nll` of tokens in so many equally long windows."""
    mean = float(nll.mean())
    value = math.exp(mean)
    return _estimate(value, value * (nll - mean), windows)


def perplexity_difference(nll: Values, reference_nll: Values, windows: int) -> Quantity:
    """One model's perplexity less that of another, which read the same tokens: paired."""
    mine, other = math.exp(nll.mean()), math.exp(reference_nll.mean())
    pull = mine * (nll - nll.mean()) - other * (reference_nll - reference_nll.mean())
    return _estimate(mine - other, pull, windows)


def divergence(
    *, nll: Values, reference_nll: Values, kld: Values, same_top: Values, windows: int
) -> Divergence:
    """Compare two models, from parallel arrays with an item for each scored token.

    `same_top` is whether both found the same token likeliest.
    """
    import numpy

    delta_p = numpy.exp(-nll) - numpy.exp(-reference_nll)
    return Divergence(
        log_ratio=_mean(nll - reference_nll, windows),
        perplexity_difference=perplexity_difference(nll, reference_nll, windows),
        kld_mean=_mean(kld, windows),
        kld_percentiles=_percentiles(kld, KLD_PERCENTILES, windows),
        kld_max=float(kld.max()),
        delta_p_mean=_mean(delta_p, windows),
        delta_p_rms=_rms(delta_p, windows),
        delta_p_percentiles=_percentiles(delta_p, DELTA_P_PERCENTILES, windows),
        same_top=_mean(same_top.astype(float), windows),
    )


def _mean(values: Values, windows: int) -> Quantity:
    mean = float(values.mean())
    return _estimate(mean, values - mean, windows)


def _rms(values: Values, windows: int) -> Quantity:
    square = float((values**2).mean())
    root = math.sqrt(square)
    return _estimate(root, (values**2 - square) / (2 * root) if root else 0 * values, windows)


def _percentiles(values: Values, percents: Sequence[float], windows: int) -> list[Percentile]:
    return [
        Percentile(percent, _percentile(values, percent / 100, windows)) for percent in percents
    ]


def _percentile(values: Values, share: float, windows: int) -> Quantity:
    """Linear between the two nearest, as numpy and llama.cpp have it."""
    import numpy

    value = float(numpy.quantile(values, share))
    below = _mean((values <= value).astype(float), windows)

    def width(error: float | None) -> float | None:
        if error is None:
            return None
        ends = numpy.quantile(values, [max(0.0, share - error), min(1.0, share + error)])
        return float(ends[1] - ends[0]) / 2

    return Quantity(value, width(below.error), width(below.clustered))


def _estimate(value: float, pulls: Values, windows: int) -> Quantity:
    """`pulls` is what each token adds to the figure's deviation (its influence), mean 0."""
    count = len(pulls)
    error = math.sqrt(float((pulls**2).sum()) / (count * (count - 1))) if count > 1 else None
    clustered = None
    if windows > 1:
        sums = pulls.reshape(windows, -1).sum(axis=1)
        clustered = math.sqrt(float((sums**2).sum()) * windows / (windows - 1)) / count
    return Quantity(value, error, clustered)
