"""How far `seven` is: it runs for an hour, and somebody waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta


class Progress:
    """Counts steps, a variant in one mode each, and tells each when it begins."""

    def __init__(self, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps = steps
        self._begun = 0
        self._clock = clock
        self._since = clock()

    def begin(self, what: str) -> None:
        """The next step begins, which is `what`."""
        spent = self._clock() - self._since
        done = self._begun
        self._begun += 1
        left = f", about {_clock_time(spent / done * (self._steps - done))} left" if done else ""
        print(f"[{self._begun} of {self._steps}, {_clock_time(spent)}{left}] {what}", flush=True)

    def skip(self, steps: int) -> None:
        """So many steps do not come: what they wanted cannot be loaded."""
        self._steps -= steps


def _clock_time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
