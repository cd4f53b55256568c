"""Plots of latency and throughput: over the answer, as a distribution, against the context."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from quantchat.document.document import Plot
from quantchat.document.drawing import from_zero, legend, logarithmic, series_style
from quantchat.document.figures import milliseconds
from quantchat.document.series import Series, letter
from quantchat.snapshot.schema import AnswerRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 300
"""Most points of a line over tokens; more points could not be seen."""

_QUANTILES = 400
"""Points of the line of a distribution."""

_LENGTH_FACTOR = 1.5
"""Figures are drawn against prompt length only if the longest prompt is this many times the
shortest."""

_NAMED_LENGTHS = 6
"""Most prompt lengths that get a tick each."""


def itl_over_answer(series: Sequence[Series]) -> list[Plot]:
    """Return a plot of the median gap before each output token, and of the spread of the gaps."""
    series = [one for one in series if one.gaps_ms]
    if not series:
        return []
    gaps = np.concatenate([one for each in series for one in each.gaps_ms])
    top = max(1.5 * float(np.percentile(gaps, 99)), 1e-9)
    above = int((gaps > top).sum())
    answers = ", ".join(f"{letter(one.place)} {len(one.gaps_ms)}" for one in series)
    note = f"Median over the answers ({answers}); the band contains 90 % of the gaps."
    if above:
        longest = milliseconds(float(gaps.max()))
        note += f" {above} of {gaps.size} gaps lie above the plot, the longest {longest}."

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for one in series:
            tokens, low, middle, high = _by_token(one.gaps_ms)
            style = series_style(one.place, one.order)
            axes.fill_between(tokens, low, high, color=style["color"], alpha=0.18, linewidth=0)
            every = (one.place * len(tokens) // 24, max(1, len(tokens) // 12))
            axes.plot(tokens, middle, **style, markevery=every, label=one.name)
        axes.set_ylim(0, top)
        axes.set_xlabel("output token")
        axes.set_ylabel("inter-token latency, ms")
        legend(figure)

    return [Plot("itl-over-answer", "ITL over the answer", note, draw)]


def _by_token(
    gaps_ms: Sequence[Sequence[float]],
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Return token number, 5th, 50th and 95th percentile of the gaps before it, over all answers.

    Neighbouring tokens of long answers are merged, so that there are at most `_BINS` points.
    """
    width = -(-max(map(len, gaps_ms)) // _BINS)
    bins: defaultdict[int, list[float]] = defaultdict(list)
    for gaps in gaps_ms:
        for index, gap in enumerate(gaps):
            bins[index // width].append(gap)
    tokens = [key * width + (width - 1) / 2 + 2 for key in sorted(bins)]
    low, middle, high = zip(
        *(np.percentile(bins[key], (5, 50, 95)).tolist() for key in sorted(bins)), strict=True
    )
    return tokens, list(low), list(middle), list(high)


def itl_distribution(series: Sequence[Series]) -> list[Plot]:
    """Return a plot of the empirical distribution function of all gaps of each series."""
    # If no time passed between any two tokens, a logarithmic axis has nothing to show.
    series = [one for one in series if any(gap > 0 for gaps in one.gaps_ms for gap in gaps)]
    if not series:
        return []
    note = "Share of gaps up to each length, all answers pooled; the marks are p50, p95 and p99."

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for one in series:
            gaps = np.concatenate(one.gaps_ms)
            shares = np.unique(np.append(np.linspace(0, 1, _QUANTILES), (0.5, 0.95, 0.99)))
            marks = [int(np.searchsorted(shares, share)) for share in (0.5, 0.95, 0.99)]
            label = f"{one.name}, {gaps.size} gaps"
            axes.plot(
                np.quantile(gaps, shares), 100 * shares, **series_style(one.place, one.order),
                markevery=marks, label=label,
            )  # fmt: skip
        logarithmic(axes)
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.set_xlabel("inter-token latency, ms (logarithmic)")
        axes.set_ylabel("share of gaps, %")
        legend(figure)

    return [Plot("itl-distribution", "Distribution of the ITL", note, draw)]


def against_context(series: Sequence[Series]) -> list[Plot]:
    """Return a plot of decode throughput and TTFT by prompt length.

    Empty if the prompts hardly differ in length.
    """
    lengths = {a.prompt_tokens for one in series for a in one.answers if a.prompt_tokens > 0}
    if not lengths or max(lengths) < _LENGTH_FACTOR * min(lengths):
        return []
    panels = (
        ("decode throughput, tok/s", [_by_length(one, _decode_tok_s) for one in series]),
        ("TTFT, s", [_by_length(one, _ttft_s) for one in series]),
    )
    if not any(points for _, lines in panels for points in lines):
        return []

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, 2)
        for axes, (ylabel, lines) in zip(grid, panels, strict=True):
            for one, points in zip(series, lines, strict=True):
                _against_length(axes, one, points)
            _length_axis(axes, sorted(lengths))
            from_zero(axes, max((v for line in lines for p in line.values() for v in p), default=1))
            axes.set_xlabel("prompt, tokens")
            axes.set_ylabel(ylabel)
        legend(figure)

    note = (
        "Median over the answers to prompts of each length; the bars reach from the minimum to "
        "the maximum. TTFT is shown only for prompts of which nothing was in the KV cache."
    )
    return [Plot("context", "Throughput and TTFT against context length", note, draw)]


def _decode_tok_s(answer: AnswerRecord) -> float | None:
    return answer.timing.decode_tok_s


def _ttft_s(answer: AnswerRecord) -> float | None:
    ttft_ms = answer.timing.ttft_ms
    return None if ttft_ms is None or answer.cached_tokens else ttft_ms / 1000


def _by_length(
    series: Series, read: Callable[[AnswerRecord], float | None]
) -> dict[int, list[float]]:
    found: defaultdict[int, list[float]] = defaultdict(list)
    for answer in series.answers:
        value = read(answer)
        if answer.prompt_tokens > 0 and value is not None:
            found[answer.prompt_tokens].append(value)
    return dict(sorted(found.items()))


def _against_length(axes: Axes, series: Series, points: dict[int, list[float]]) -> None:
    middle = [float(np.median(values)) for values in points.values()]
    reach = [
        [m - min(v) for m, v in zip(middle, points.values(), strict=True)],
        [max(v) - m for m, v in zip(middle, points.values(), strict=True)],
    ]
    axes.errorbar(
        list(points), middle, yerr=np.maximum(reach, 0), capsize=3, elinewidth=1,
        **series_style(series.place, series.order), label=series.name,
    )  # fmt: skip


def _length_axis(axes: Axes, lengths: Sequence[int]) -> None:
    if lengths[-1] >= 8 * lengths[0]:
        logarithmic(axes)
    if len(lengths) <= _NAMED_LENGTHS:
        axes.set_xticks(lengths, [str(length) for length in lengths], minor=False)
        axes.set_xticks([], minor=True)
