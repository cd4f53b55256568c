"""The Pareto frontier of a pick: memory, speed and quality in one plot, as text and as picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from quantchat.document.document import Plot
from quantchat.document.figures import number, size
from quantchat.document.series import letter
from quantchat.snapshot.pick import CandidateRecord, PickRecord
from quantchat.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDE, _HIGH = 56, 10
"""Columns and rows of the plot in a terminal."""

_FLOOR = 1e-4
"""Smallest KLD on the logarithmic axis. A smaller KLD, such as the reference's 0, is drawn here."""

_NEAR, _NEAR_DECADES = 0.15, 0.5
"""If two marks differ by less than this share in speed and by less than this many decades in KLD,
the name of the lower mark is drawn below the mark, so that the names do not overlap."""

NOTE = (
    "Lower and further right is better. The area of a mark grows with the memory. A filled mark is"
    " on the frontier: no other variant is at least as good in all three figures and better in one."
    " For a hollow mark there is such a variant. Lines are 95 % intervals. A KLD below 0.0001, such"
    " as the reference's, which is 0, is drawn at 0.0001."
)


class _Point(NamedTuple):
    place: int
    """Index of the candidate in the profile, from 0; it decides letter and colour."""
    one: CandidateRecord
    speed: float
    kld: float
    """At least `_FLOOR`."""


def _points(pick: PickRecord) -> list[_Point]:
    return [
        _Point(place, one, one.speed.value, max(_FLOOR, one.kld.value))
        for place, one in enumerate(pick.candidates)
        if not one.dropped and one.speed is not None and one.kld is not None
    ]


def scatter(pick: PickRecord) -> str:
    """Return a text plot of KLD over speed, with a letter for each candidate.

    A letter in parentheses means that the candidate is not on the frontier. The text is empty for
    fewer than two measured candidates.
    """
    points = _points(pick)
    if len(points) < 2:
        return ""
    logs = [math.log10(point.kld) for point in points]
    top, bottom = max(logs), min(logs)
    left, right = min(p.speed for p in points), max(p.speed for p in points)
    canvas = [[" "] * (_WIDE + 4) for _ in range(_HIGH)]
    for point, log in zip(points, logs, strict=True):
        x = round((point.speed - left) / (right - left or 1) * (_WIDE - 1))
        y = round((top - log) / (top - bottom or 1) * (_HIGH - 1))
        name = letter(point.place)
        mark = name if point.one.frontier else f"({name})"
        while any(cell != " " for cell in canvas[y][x : x + len(mark)]) and x < _WIDE:
            x += 1  # move right, beside a letter that is already there
        for offset, character in enumerate(mark):
            canvas[y][x + offset] = character
    lowest = f"≤{_FLOOR:g}" if bottom <= math.log10(_FLOOR) else f"{10**bottom:.2g}"
    ends = {0: f"{10**top:.2g}", _HIGH - 1: lowest}
    lines = ["KLD, nats (less is better); letters in parentheses are not on the frontier"]
    for row, cells in enumerate(canvas):
        lines.append(f"{ends.get(row, ''):>8} │{''.join(cells).rstrip()}")
    lines.append(f"{'':8} └{'─' * _WIDE}")
    low, high = number(left), number(right)
    lines.append(f"{'':10}{low}{'tok/s (more is better)':^{_WIDE - len(low) - len(high)}}{high}")
    return "\n".join(lines)


def plots(pick: PickRecord) -> list[Plot]:
    """Return the frontier as a plot for a page; empty for fewer than two measured candidates."""
    points = _points(pick)
    if len(points) < 2:
        return []

    def draw(figure: Figure) -> None:
        from quantchat.document.drawing import PAPER, series_style

        axes = figure.add_subplot()
        largest = max(point.one.memory or 0 for point in points) or 1
        for point in points:
            style, one = series_style(point.place), point.one
            colour = style["color"]
            _error_bars(axes, point, colour)
            axes.scatter(
                [point.speed], [point.kld], s=30 + 220 * (one.memory or 0) / largest,
                marker=style["marker"], edgecolors=colour, linewidths=1.5, zorder=3,
                facecolors=colour if one.frontier else PAPER,
            )  # fmt: skip
            text = f"{one_line(one.label)}\n{size(one.memory)}"
            below = any(_close(point, other) and point.kld < other.kld for other in points)
            axes.annotate(
                text, (point.speed, point.kld), xytext=(12, -22 if below else 4),
                textcoords="offset points", fontsize=7, zorder=4,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # plain text, not mathtext
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.margins(x=0.22, y=0.18)
        axes.set_xlabel("decode throughput, tok/s")
        axes.set_ylabel("mean KLD from the reference, nats")

    return [Plot("frontier", "Memory, speed and distance from the original", NOTE, draw, 1.2)]


def _close(one: _Point, other: _Point) -> bool:
    """Return whether the names of two marks would overlap if each stood beside its mark."""
    near = abs(one.speed - other.speed) < _NEAR * max(one.speed, other.speed)
    return near and abs(math.log10(one.kld / other.kld)) < _NEAR_DECADES


def _error_bars(axes: object, point: _Point, colour: str) -> None:
    speed, kld = point.one.speed, point.one.kld
    plot = axes.plot  # type: ignore[attr-defined]
    if speed is not None and speed.low is not None and speed.high is not None:
        plot([speed.low, speed.high], [point.kld, point.kld], color=colour, linewidth=1)
    if kld is not None and kld.low is not None and kld.high is not None:
        low, high = max(_FLOOR, kld.low), max(_FLOOR, kld.high)
        plot([point.speed, point.speed], [low, high], color=colour, linewidth=1)
