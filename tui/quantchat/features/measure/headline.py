"""The result of a measurement as a sentence to quote, which claims only what the intervals show."""

from __future__ import annotations

from collections.abc import Iterator

from quantchat.document.series import has_two_sides, how_compared
from quantchat.snapshot.ratios import compare_sides
from quantchat.snapshot.schema import Snapshot
from quantchat.statistics.intervals import Ratio
from quantchat.text import one_line


def headline(snapshot: Snapshot) -> str:
    """Return which side decodes faster and which has smaller weights; empty if unknown."""
    if snapshot.measurement is None or not has_two_sides(snapshot):
        return ""
    found = {row.name: row.ratio for row in compare_sides(snapshot)}
    a, b = map(one_line, snapshot.shown)
    parts = []
    if "decode_tps" in found:
        parts.append(_speed(a, b, found["decode_tps"], how_compared(snapshot)))
    if "weights_bytes" in found:
        parts.append(_weights(a, b, found["weights_bytes"]))
    result = "; ".join(parts) + "." if parts else ""
    return " ".join([*_cautions(snapshot), *filter(None, [result])])


def _cautions(snapshot: Snapshot) -> Iterator[str]:
    """Yield a caution for each variant whose weights or kernel are untypical of its method."""
    for variant in snapshot.variants:
        ran, label = variant.model_info, one_line(variant.label)
        if variant.label not in snapshot.shown or ran is None:
            continue
        if ran.format_deviation:
            yield f"{label}: {one_line(ran.format_deviation)}."
        if ran.slow_kernel:
            yield f"SLOW KERNEL of {label}: {one_line(ran.slow_kernel)}."


def _speed(a: str, b: str, ratio: Ratio, how: str) -> str:
    faster, slower = (b, a) if ratio.value > 1 else (a, b)
    than = f"{_above(ratio.value)}× as fast as {slower}"
    if ratio.low is None or ratio.high is None:
        return f"{faster} decoded {than}, measured once, {how}"
    if not ratio.shown:
        return f"no difference between {a} and {b} in decoding is shown, {how}"
    bounds = sorted((_above(ratio.low), _above(ratio.high)), key=float)
    return f"{faster} decodes {than} ({' to '.join(bounds)}), {how}"


def _above(ratio: float) -> str:
    """Return `ratio` or its inverse, whichever is above 1."""
    return f"{max(ratio, 1 / ratio):.2f}"


def _weights(a: str, b: str, ratio: Ratio) -> str:
    if ratio.value == 1:
        return "the weights are equally large"
    smaller, larger = (b, a) if ratio.value < 1 else (a, b)
    share = min(ratio.value, 1 / ratio.value)
    return f"the weights of {smaller} are {share:.2f}× as large as those of {larger}"
