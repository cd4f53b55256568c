"""Compares the predictions of two models over the scored tokens of a text.

The definitions are those of llama.cpp's `llama-perplexity --kl-divergence` (`kl_divergence` in
tools/perplexity/perplexity.cpp): perplexity, the KL divergence KL(reference ‖ variant) in nats, Δp
(the probability that the variant gives to the token that actually follows, minus the probability
that the reference gives to it), its root mean square, and top-1 agreement. The standard errors
`Quantity.error` are llama.cpp's as well: they take tokens as independent, and the error of a
perplexity is computed with the delta method. The error of a difference of perplexities is paired,
because both models read the same tokens.

Tokens of one window are not quite independent: a hard passage is hard for many tokens. So
`Quantity.clustered` takes passages of about `PASSAGE` tokens as units (a cluster-robust error:
Cameron and Miller 2015). A window of 512 tokens, of which 255 are scored, is one passage. A longer
window is several passages, because a few long windows would be too few units for a usable error.
The error of the percentile at a share s is half the distance between the percentiles at s - e and
s + e, where e is the standard error of the share (Woodruff 1952).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantchat.statistics.intervals import POWER
from quantchat.wire.codec import FORMERLY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]

KLD_PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
PASSAGE = 256
"""Approximate number of scored tokens in a passage; a window of 512 tokens has 255."""

DEPTH_ENDS = (128, *(2**power for power in range(9, 21)))
"""The KLD by depth is the mean KLD in each of several parts of a window. The parts end before these
token indices; the last part ends with the window."""

EQUAL_DEPTHS = 4
"""Number of equal parts into which the scored tokens of a window are split in older snapshots, for
the KLD by depth."""

DELTA_P_PERCENTILES = (0.1, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class Quantity:
    """A figure with its standard errors; None if an error cannot be computed."""

    value: float
    """The figure."""
    error: float | None
    """Standard error with each token as a unit."""
    clustered: float | None
    """Standard error with each passage as a unit; None for fewer than two passages."""

    @property
    def wider(self) -> float | None:
        """The larger of the two standard errors; None if neither is known."""
        known = [error for error in (self.error, self.clustered) if error is not None]
        return max(known, default=None)


@dataclass(frozen=True)
class Percentile:
    """A percentile with its standard errors."""

    percent: float
    """Which percentile, from 0 to 100."""
    figure: Quantity
    """The value of the percentile."""


@dataclass(frozen=True)
class Divergence:
    """A model compared with the reference model. Probabilities are from 0 to 1, KLD in nats."""

    log_ratio: Quantity
    """ln(perplexity of the model ÷ perplexity of the reference), paired."""
    perplexity_difference: Quantity
    """Perplexity of the model minus perplexity of the reference (ΔPPL), paired."""
    kld_mean: Quantity
    """Mean KL(reference ‖ model) over the scored tokens."""
    kld_percentiles: list[Percentile]
    """Percentiles of the KLD of single tokens."""
    kld_max: float
    """Largest KLD of a single token."""
    delta_p_mean: Quantity
    """Mean Δp: the model's probability of the text's next token minus the reference's
    probability."""
    delta_p_rms: Quantity
    """Root mean square of Δp."""
    delta_p_percentiles: list[Percentile]
    """Percentiles of Δp of single tokens."""
    top1_agreement: Quantity = field(metadata={FORMERLY: "same_top"})
    """Top-1 agreement: share of positions at which both models have the same most likely token."""
    kld_by_depth: list[Quantity] = field(default_factory=list)
    """Mean KLD in each part of the windows, from the first compared token to the last; empty if it
    was not measured. `SettingRecord.depth_ends` of the snapshot says where the parts end."""


def passages(windows: int, scored: int) -> int:
    """Return the number of passages in `windows` windows of `scored` scored tokens each."""
    return windows * _parts(scored)


def detectable(quantity: Quantity, passages: int) -> float | None:
    """Return the smallest true value that is distinguished from 0 with the probability `POWER`.

    The larger of two results: one with tokens as independent units, one with the number `passages`
    of passages. None without a standard error.
    """
    from scipy.special import ndtri, stdtrit

    found = []
    if quantity.error is not None:
        found.append((ndtri(0.975) + ndtri(POWER)) * quantity.error)
    if quantity.clustered is not None and passages > 1:
        quantiles = stdtrit(passages - 1, 0.975) + stdtrit(passages - 1, POWER)
        found.append(quantiles * quantity.clustered)
    return float(max(found)) if found else None


def _parts(scored: int) -> int:
    return max(1, round(scored / PASSAGE))


def depth_ends(first: int, window: int) -> tuple[int, ...]:
    """Return the boundaries of the parts of the KLD by depth: token indices (from 0) in a window.

    Each part reaches from one boundary up to, but not including, the next. `first` is the index of
    the first compared token. Empty if there would be a single part.
    """
    ends = (first, *(end for end in DEPTH_ENDS if first < end < window), window)
    return ends if len(ends) > 2 else ()


def perplexity(nll: Values, windows: int) -> Quantity:
    """Return the perplexity from the negative log-likelihoods `nll` of `windows` equal windows."""
    mean = float(nll.mean())
    value = math.exp(mean)
    return _estimate(value, value * (nll - mean), windows)


def perplexity_difference(nll: Values, reference_nll: Values, windows: int) -> Quantity:
    """Return a model's perplexity minus that of a reference that read the same tokens: paired."""
    mine, other = math.exp(nll.mean()), math.exp(reference_nll.mean())
    influence = mine * (nll - nll.mean()) - other * (reference_nll - reference_nll.mean())
    return _estimate(mine - other, influence, windows)


def divergence(
    *,
    nll: Values,
    reference_nll: Values,
    kld: Values,
    top1_agrees: Values,
    windows: int,
    kld_early: Values | None = None,
    depth_ends: Sequence[int] = (),
) -> Divergence:
    """Compare two models, from parallel arrays with an item for each scored token.

    The items are ordered by window; there are `windows` windows with equally many scored tokens.
    `nll` has the negative log-likelihoods, `kld` the KL(reference ‖ model). `top1_agrees` says for
    each token whether both models had the same most likely token. `kld_early` has the KLD of each
    window's tokens before the scored ones; they count only for the KLD by depth, whose parts have
    the boundaries `depth_ends`.
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
        top1_agreement=_mean(top1_agrees.astype(float), windows),
        kld_by_depth=_by_depth(kld, kld_early, depth_ends, windows),
    )


def _by_depth(
    scored: Values, early: Values | None, ends: Sequence[int], windows: int
) -> list[Quantity]:
    """Return the mean KLD, over all windows, from each boundary in `ends` to the next."""
    import numpy

    if early is None or not ends:
        return []
    by_window = numpy.hstack([early.reshape(windows, -1), scored.reshape(windows, -1)])
    cuts = [end - ends[0] for end in ends[1:-1]]
    parts = numpy.split(by_window, cuts, axis=1)
    return [_mean(part.ravel(), windows) for part in parts]


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
    """Return the quantile `share` (0 to 1), interpolated linearly as in llama.cpp."""
    import numpy

    value = float(numpy.quantile(values, share))
    below = _mean((values <= value).astype(float), windows)

    def width(error: float | None) -> float | None:
        if error is None:
            return None
        ends = numpy.quantile(values, [max(0.0, share - error), min(1.0, share + error)])
        return float(ends[1] - ends[0]) / 2

    return Quantity(value, width(below.error), width(below.clustered))


def _estimate(value: float, influences: Values, windows: int) -> Quantity:
    """Return `value` with its standard errors.

    `influences` has the influence of each token on `value`, with mean 0, ordered by window.
    """
    import numpy

    count = len(influences)
    error = math.sqrt(float((influences**2).sum()) / (count * (count - 1))) if count > 1 else None
    clustered = None
    by_window = influences.reshape(windows, -1)
    parts = numpy.array_split(by_window, _parts(by_window.shape[1]), axis=1)
    sums = numpy.concatenate([part.sum(axis=1) for part in parts])
    if (units := len(sums)) > 1:
        clustered = math.sqrt(float((sums**2).sum()) * units / (units - 1)) / count
    return Quantity(value, error, clustered)
