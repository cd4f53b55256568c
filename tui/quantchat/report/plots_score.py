"""The plot of a scored text: the quality of the variants against their size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantchat.document.document import Plot
from quantchat.document.drawing import INK, legend, series_style
from quantchat.snapshot.schema import Snapshot
from quantchat.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GB = 1e9


def quality_against_size(snapshot: Snapshot) -> list[Plot]:
    """Return a plot of KLD against the size of the weights, with each variant that has both."""
    if snapshot.score is None:
        return []
    points = [
        (one.label, one.weights / _GB, one.divergence.kld_mean)
        for one in snapshot.score.models
        if one.role == "variant" and one.divergence and one.weights > 0
    ]
    if len(points) < 2:
        return []
    floors = [
        one.divergence.kld_mean.value
        for one in snapshot.score.models
        if one.role == "floor" and one.divergence
    ]
    note = (
        "Further left and lower is better: small and close to the reference. Bars: two standard "
        "errors."
        + (" Line: the noise floor, how far the reference differs from itself." if floors else "")
    )

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (label, size, kld) in enumerate(points):
            style = {**series_style(place), "linestyle": "none"}
            reach = 2.0 * (kld.wider or 0.0)
            axes.errorbar(
                [size], [kld.value], yerr=[reach], capsize=3, elinewidth=1, **style,
                label=one_line(label),
            )  # fmt: skip
        for floor in floors:
            axes.axhline(floor, color=INK, linewidth=1, linestyle=":")
        axes.set_xlim(0, 1.1 * max(size for _, size, _ in points))
        axes.set_ylim(0, 1.1 * max(kld.value + 2.0 * (kld.wider or 0.0) for _, _, kld in points))
        axes.set_xlabel("weights, GB")
        axes.set_ylabel("KLD from the reference, nats")
        legend(figure)

    return [Plot("quality-against-size", "Quality against size", note, draw)]
