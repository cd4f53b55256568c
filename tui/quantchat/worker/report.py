"""The type of the callback with which a job reports its progress, and the format of durations."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[int, int, str], None]
"""Called with the amounts of work done and in total (0: unknown) and a detail, from any thread."""


def duration(seconds: float) -> str:
    """Return `seconds` as text, e.g. `40 s` or `12 min`."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
