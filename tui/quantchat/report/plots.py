"""All plots of a snapshot. A plot without data is left out; if an axis is cut, a note says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantchat.document.document import Plot
from quantchat.document.drawing import INK, PAPER, logarithmic, series_style
from quantchat.document.figures import ORDERS, plural
from quantchat.document.series import all_series, has_two_sides, legend_label
from quantchat.report.plots_latency import against_context, itl_distribution, itl_over_answer
from quantchat.report.plots_load_test import load_plots
from quantchat.report.plots_memory import device_memory, ledgers, memory_by_turn
from quantchat.report.plots_score import quality_against_size
from quantchat.snapshot.ratios import FigureComparison, compare_sides
from quantchat.snapshot.schema import Snapshot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_LEAST_REACH = 4.0
"""An interval between this ratio and its inverse is never cut off at the end of the axis; only a
wider interval may be."""


def plots(snapshot: Snapshot) -> list[Plot]:
    """Return each plot that has data, in the order of the report."""
    series = all_series(snapshot)
    return [
        *_ratios(snapshot),
        *quality_against_size(snapshot),
        *itl_over_answer(series),
        *itl_distribution(series),
        *against_context(series),
        *load_plots(snapshot),
        *ledgers(snapshot),
        *memory_by_turn(series),
        *device_memory(snapshot),
    ]


def _ratios(snapshot: Snapshot) -> list[Plot]:
    if snapshot.measurement is None or not has_two_sides(snapshot):
        return []
    rows = [(row, row.ratio) for row in reversed(compare_sides(snapshot))]
    if not rows:
        return []
    left, right = snapshot.shown
    order = ORDERS[snapshot.measurement.order]
    note = (
        f"B ÷ A, {order}, with its 95 % interval. Filled: a difference is shown. Hollow: the "
        "interval contains 1, or there is none."
    )

    values = [ratio.value for _, ratio in rows if ratio.value > 0]
    bounds = [x for _, ratio in rows for x in (ratio.low, ratio.value, ratio.high) if x]
    far = [max(bound, 1 / bound) for bound in bounds]
    # End the axis soon after the ratios: a single wide interval would make all others tiny.
    most = max(_LEAST_REACH, *(max(value, 1 / value) ** 2 for value in values))
    reach = 1.1 * min(max(1.02, *far), most)
    if beyond := sum(bound > reach for bound in far):
        note += f" Arrows: {plural(beyond, 'end')} of intervals beyond the plot."
    colour = series_style(1)["color"]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(1, color=INK, linewidth=1)
        for height, (_, ratio) in enumerate(rows):
            if ratio.low is not None and ratio.high is not None:
                axes.plot([ratio.low, ratio.high], [height, height], color=colour)
                for end, marker in ((ratio.low, "<"), (ratio.high, ">")):
                    if max(end, 1 / end if end else reach * 2) > reach:
                        edge = reach / 1.02 if marker == ">" else 1.02 / reach
                        axes.plot([edge], [height], marker, color=colour, markersize=6)
            axes.plot(
                [ratio.value], [height], "s", color=colour, markersize=6,
                markerfacecolor=colour if ratio.shown else PAPER,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [_better(row) for row, _ in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(1 / reach, reach)  # twice and half are equally far from 1
        logarithmic(axes)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{legend_label(1, right)}\n÷ {legend_label(0, left)}")

    return [Plot("ratios", "B against A", note, draw, height=0.8)]


def _better(row: FigureComparison) -> str:
    if row.less_is_better is None:
        return row.figure
    return f"{row.figure} ({'less' if row.less_is_better else 'more'} is better)"
