"""Plots of a load test: throughput and ITL over the load levels, and ITL over throughput."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantchat.document.document import Plot
from quantchat.document.drawing import from_zero, legend, logarithmic, series_style
from quantchat.document.series import legend_label, places
from quantchat.snapshot.load_test import Point, points
from quantchat.snapshot.schema import Snapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def load_plots(snapshot: Snapshot) -> list[Plot]:
    """Return plots of throughput and ITL over the load levels, and of ITL over throughput.

    Empty if no model has figures of at least two levels.
    """
    found = snapshot.load_test
    lines = [
        (place, label, measured)
        for label, place in places(snapshot).items()
        for model in (found.models if found else ())
        if found and model.label == label
        if len(measured := [p for p in points(found, model) if p.figures]) > 1
    ]
    if not lines:
        return []
    rated = any(point.level.rate for _, _, measured in lines for point in measured)
    at_once = "requests per second" if rated else "requests at once"

    def over_load(figure: Figure) -> None:
        throughput, latency = figure.subplots(1, 2)
        for place, label, measured in lines:
            loads = [_load(point) for point in measured]
            values, below, above = zip(*map(_throughput, measured), strict=True)
            throughput.errorbar(
                loads, values, yerr=(below, above), capsize=2, label=legend_label(place, label),
                **series_style(place),
            )  # fmt: skip
            latency.plot(loads, [_itl_ms(point) for point in measured], **series_style(place))
        _axes(throughput, at_once, "output, tok/s", lines)
        _axes(latency, at_once, "ITL p95, ms", lines)
        legend(figure)

    def against_each_other(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, label, measured in lines:
            values = [_throughput(point)[0] for point in measured]
            axes.plot(
                values,
                [_itl_ms(p) for p in measured],
                label=legend_label(place, label),
                **series_style(place),
            )
            for point, value in zip(measured, values, strict=True):
                axes.annotate(
                    point.name, (value, _itl_ms(point)), (4, 4),
                    textcoords="offset points", size="x-small",
                )  # fmt: skip
        axes.set_xlabel("output, tok/s")
        axes.set_ylabel("ITL p95, ms")
        axes.set_xlim(left=0)
        from_zero(axes, max(_itl_ms(p) for _, _, measured in lines for p in measured))
        legend(figure)

    return [
        Plot(
            "load",
            "Throughput and latency under load",
            "Mean over the rounds with its 95 % interval; ITL over all requests.",
            over_load,
        ),
        Plot(
            "load-latency",
            "Latency over throughput",
            f"Each point is a level ({at_once}). Further right and lower is better.",
            against_each_other,
        ),
    ]


def _axes(axes: Axes, xlabel: str, ylabel: str, lines: list[tuple[int, str, list[Point]]]) -> None:
    loads = [_load(point) for _, _, measured in lines for point in measured]
    if max(loads) >= 4 * min(loads):
        logarithmic(axes)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_ylim(bottom=0)


def _load(point: Point) -> float:
    return point.level.rate or point.level.concurrency


def _throughput(point: Point) -> tuple[float, float, float]:
    """Return the output throughput, and how far its interval reaches below and above it."""
    assert point.figures  # noqa: S101 - `load_plots` chooses points with figures
    value = point.figures.output_tps
    if value.low is None or value.high is None:
        return value.value, 0.0, 0.0
    return value.value, min(value.value, value.value - value.low), value.high - value.value


def _itl_ms(point: Point) -> float:
    itl = point.figures.itl_ms if point.figures else None
    return itl.p95 if itl else 0.0
