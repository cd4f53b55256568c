"""How a job reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[int, int, str], None]
"""Called with `done`, `total` (0: unknown) and a detail, from any thread."""
