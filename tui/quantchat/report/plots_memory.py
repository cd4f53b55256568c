"""Plots of memory: the parts of each variant's memory, its process after each turn, the device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from quantchat.document.document import Plot
from quantchat.document.drawing import (
    HATCHES,
    INK,
    PARTS,
    from_zero,
    legend,
    series_style,
    whole_ticks,
)
from quantchat.document.figures import scale
from quantchat.document.series import Series, legend_label, places
from quantchat.snapshot.schema import Snapshot, VariantRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEDGER = (
    ("weights", "weights"),
    ("draft", "draft"),
    ("kv_cache", "KV cache"),
    ("other_live", "other live tensors"),
    ("slack", "allocator slack"),
    ("non_torch", "non-torch"),
)
"""Fields of the ledger, each with its name in the legend."""
_OTHER = "other memory of the process"


def ledgers(snapshot: Snapshot) -> list[Plot]:
    """Return a plot with a bar for each variant, divided into the parts of its memory."""
    known = places(snapshot)
    variants = [v for v in snapshot.variants if v.ledger is not None and _parts(v)]
    if not variants:
        return []

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        parts = [_parts(variant) for variant in variants]
        peaks = [max(0, v.ledger.peak) if v.ledger else 0 for v in variants]
        divisor, unit = scale(max(*peaks, *(sum(one.values()) for one in parts)))
        heights = range(len(variants))
        left = np.zeros(len(variants))
        for index, name in enumerate([*(name for _, name in _LEDGER), _OTHER]):
            having = [at for at, one in enumerate(parts) if name in one]
            if having:
                widths = [parts[at][name] / divisor for at in having]
                axes.barh(
                    having, widths, left=left[having], height=0.5, label=name,
                    color=PARTS[index], hatch=HATCHES[index], edgecolor=INK, linewidth=0.6,
                )  # fmt: skip
                left[having] += widths
        drawn = [(peak / divisor, at) for at, peak in enumerate(peaks) if peak]
        if drawn:
            axes.plot(*zip(*drawn, strict=True), "D", color=INK, label="peak")
        axes.set_yticks(
            heights, [fill(legend_label(known[v.label], v.label), 24) for v in variants]
        )
        axes.set_ylim(len(variants) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(unit)
        legend(figure, columns=3)

    note = (
        "Memory of each variant's process at the end. Unknown parts are not drawn. On a GPU "
        "the peak is the most that torch's allocator reserved."
    )
    height = 0.55 + 0.15 * len(variants)
    return [Plot("memory-ledger", "Memory ledger", note, draw, height)]


def _parts(variant: VariantRecord) -> dict[str, int]:
    """Return the bytes of each known part by its name, and the other memory of the process."""
    if variant.ledger is None:
        return {}
    known = {name: getattr(variant.ledger, field) for field, name in _LEDGER}
    parts = {name: count for name, count in known.items() if count > 0}
    other = variant.ledger.process - sum(parts.values())
    return {**parts, _OTHER: other} if other > 0 else parts


def memory_by_turn(series: Sequence[Series]) -> list[Plot]:
    """Return a plot of the memory of each variant's process after each of its answers."""
    lines = [(one, _processes(one)) for one in series]
    lines = [(one, points) for one, points in lines if len(points) > 1]
    if not lines:
        return []
    highest = max(size for _, points in lines for _, size in points)
    divisor, unit = scale(highest)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for one, points in lines:
            turns = [turn for turn, _ in points]
            sizes = [size / divisor for _, size in points]
            axes.plot(turns, sizes, **series_style(one.place, one.order), label=one.name)
        from_zero(axes, highest / divisor)
        whole_ticks(axes.xaxis)
        axes.set_xlabel("turn")
        axes.set_ylabel(f"{unit} of the process")
        legend(figure)

    note = "Memory of each variant's process at the end of each answer."
    return [Plot("memory-by-turn", "Memory over time, by variant", note, draw)]


def _processes(series: Series) -> list[tuple[int, int]]:
    return [
        (turn, answer.ledger.process)
        for turn, answer in zip(series.turns, series.answers, strict=True)
        if answer.ledger is not None and answer.ledger.process > 0
    ]


def device_memory(snapshot: Snapshot) -> list[Plot]:
    """Return a plot of the memory in use on each GPU during the measurement.

    Without a GPU it is the main memory in use.
    """
    samples = snapshot.measurement.samples if snapshot.measurement else []
    lines: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for sample in samples:
        at_s = sample.at_s - samples[0].at_s
        if not sample.gpus:
            lines["main memory in use"].append((at_s, sample.host.ram_used))
        for gpu in sample.gpus:
            if gpu.memory_used is not None:
                lines[f"GPU {gpu.index} memory in use"].append((at_s, gpu.memory_used))
    drawn = {name: points for name, points in lines.items() if len(points) > 1}
    if not drawn:
        return []
    highest = max(used for points in drawn.values() for _, used in points)
    divisor, unit = scale(highest)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        # Do not use the colours of the two variants, because these lines are about the whole
        # machine.
        for place, (name, points) in enumerate(drawn.items(), start=2):
            times, used = zip(*points, strict=True)
            axes.plot(times, np.array(used) / divisor, **series_style(place), label=name)
        from_zero(axes, highest / divisor)
        axes.set_xlabel("s since the first round began")
        axes.set_ylabel(unit)
        legend(figure)

    note = "Memory that all processes use on the device, before each round and at the end."
    return [Plot("memory-device", "Memory over time, of the device", note, draw)]
