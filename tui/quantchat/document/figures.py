"""Figures as text for people. A figure that is not known is "–", never 0."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING

from quantchat.wire.variant import ANY_SERVER, STARTED_SERVER

if TYPE_CHECKING:
    from quantchat.statistics.intervals import Ratio
    from quantchat.statistics.quality import Quantity

UNKNOWN = "–"

ORDERS = {"together": "together (contended)", "in-turn": "one at a time"}
"""Key: the order in which both variants answered; value: its name beside a figure."""
SHORT_ORDERS = {"together": "together", "in-turn": "one at a time"}
"""Shorter names, for text in brackets and for the labels of keyboard keys."""
NARROW_ORDERS = {"together": "together", "in-turn": "1 at a time"}
"""The shortest names, for a narrow column."""

MOST_DETECTABLE = 1.0
"""Largest relative difference that is printed as detectable. A measurement that could only show
more than a doubling says little."""

_MOST_DECIMALS = 5

_LARGE = 1e5
"""A figure of at least this size is written with an exponent."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def number(value: float | None) -> str:
    """Return a number with a useful number of digits: `0.42`, `4.2`, `42.1`, `421`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2f}"


def with_error(
    quantity: Quantity, *, times: float = 1.0, signed: bool = False, least: int = 0
) -> str:
    """Return `quantity` × `times` with its standard error, such as `12.3 ±1.5`.

    Both are rounded to two significant digits of the error, but to `least` decimals at least.
    `signed` adds a plus to positive values. No space stands between ± and the error, so that a
    narrow table breaks the line before ±.
    """
    value, sign = quantity.value * times, "+" if signed else ""
    error = None if quantity.wider is None else quantity.wider * times
    if abs(value) >= _LARGE:
        form = f"{sign}.3g"
    else:
        magnitude = error or abs(value)
        needed = 1 - math.floor(math.log10(magnitude)) if magnitude else 0
        form = f"{sign}.{max(least, min(_MOST_DECIMALS, needed))}f"
    text = f"{value:{form}}"
    return text if error is None else f"{text} ±{error:{form.lstrip('+')}}"


def no_difference(ratio: Ratio) -> str:
    """Return the text "no difference shown", with the detectable difference unless it is too large.

    `detectable: 3.2%` means that four of five such measurements would show a true difference of
    3.2 %.
    """
    if ratio.detectable is None or ratio.detectable > MOST_DETECTABLE:
        return "no difference shown"
    return f"no difference shown (detectable: {ratio.detectable:.1%})"


def plural(count: int, noun: str) -> str:
    """Return `1 prompt` or `2 prompts`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def milliseconds(value: float | None) -> str:
    """Return a duration in ms with its unit: `42.1 ms`, `1.2 s`."""
    if value is None:
        return UNKNOWN
    return f"{value / 1000:.1f} s" if value >= 9_999.5 else f"{number(value)} ms"


def seconds(value: float) -> str:
    """Return a duration in s with its unit: `0.4 s`, `42 s`, `3:07 min`."""
    if value >= 99.5:
        minutes, remainder = divmod(round(value), 60)
        return f"{minutes}:{remainder:02} min"
    return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"


def load_parts(
    device: str, import_s: float, weights_s: float, warmup_s: float
) -> list[tuple[str, float]]:
    """Return the parts of the load time of a variant on `device`, as pairs of name and seconds.

    A variant on a server has other parts than a variant that a worker loads.
    """
    if device not in ANY_SERVER:
        return [("import", import_s), ("weights", weights_s), ("warm-up", warmup_s)]
    start = [("server's start", weights_s)] if device == STARTED_SERVER else []
    return [("import", import_s), *start, ("first answer", warmup_s)]


def when(created: str) -> str:
    """Return a saved time to the minute: `2026-11-03 14:25 +0100`; other text unchanged."""
    try:
        return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M %z}"
    except ValueError:
        return created


def size(count: int | None) -> str:
    """Return a number of bytes in binary units. None and negative numbers are not known."""
    if count is None or count < 0:
        return UNKNOWN
    divisor, unit = scale(count)
    return f"{count} B" if divisor == 1 else f"{number(count / divisor)} {unit}"


def scale(count: int) -> tuple[int, str]:
    """Return the best unit for `count` bytes: its size in bytes and its name."""
    power = 0
    while count / 1024**power >= 999.5 and power < len(_UNITS) - 1:
        power += 1
    return 1024**power, _UNITS[power]


def thoughts(tokens: int) -> str:
    """Return the title of a model's thoughts, with the number of tokens if it is above 0."""
    return f"thoughts, {plural(tokens, 'token')}" if tokens > 0 else "thoughts"


def thinking(tokens: int) -> str:
    """Return the title of a model's thoughts while it still thinks."""
    return f"thinking, {plural(tokens, 'token')}" if tokens > 0 else "thinking"
