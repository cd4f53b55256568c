"""Strip charts (sparklines): values over time, one cell for each value.

The caller gives the scale. If each strip scaled itself to its values, noise would look dramatic
and two strips could not be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def strip_chart(values: Sequence[float], top: float, width: int, height: int = 1) -> list[str]:
    """Draw the last `width` values, 0 to `top`, as `height` lines of block characters.

    The newest value is at the right end. A value above 0 shows at least one eighth of a cell.
    """
    full = 8 * height
    shown = values[-width:] if width > 0 else []
    levels = [
        0 if top <= 0 or value <= 0 else max(1, round(min(1.0, value / top) * full))
        for value in shown
    ]
    blank = " " * (width - len(levels))
    return [
        blank + "".join(_EIGHTHS[min(8, max(0, level - 8 * row))] for level in levels)
        for row in reversed(range(height))
    ]


def at_intervals(samples: Iterable[tuple[float, float]], interval_s: float) -> list[float]:
    """Resample (seconds, value) `samples` to one value per interval; gaps repeat the last value."""
    values: list[float] = []
    first: float | None = None
    for at_s, value in samples:
        if first is None:
            first = at_s
        index = int((at_s - first) / interval_s)
        if index < len(values):
            values[-1] = value
            continue
        values.extend([values[-1]] * (index - len(values)) if values else [])
        values.append(value)
    return values


def bar(share: float, width: int) -> str:
    """Return a bar of `width` cells with `share` (0 to 1) of it filled, in eighths of a cell."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    filled, rest = divmod(eighths, 8)
    text = "█" * filled + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return text.ljust(width)


def ceiling(value: float) -> float:
    """Return the next of 1, 2, 5 × 10ⁿ at or above `value`, so that a scale seldom changes."""
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9))


def size_ceiling(count: int) -> int:
    """Return the next power of two at or above `count` bytes, so that a scale seldom changes."""
    return 1 << (count - 1).bit_length() if count > 0 else 0
