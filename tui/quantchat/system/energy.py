"""Energy of an answer, from NVML's counter (`nvmlDeviceGetTotalEnergyConsumption`).

The counter is the whole board's, idle power included: it is a variant's only while nothing else
runs there.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_S = 1.0
"""Shortest window, in seconds, of which a figure is given: the counter moves in steps."""


@dataclass(frozen=True)
class Energy:
    """What the board took over a window in which one variant answered, and nothing else."""

    joules: float
    seconds: float
    """From the sending of the prompt to the end of the answer: prefill is in it."""

    def per_token(self, tokens: int) -> float | None:
        """Joules for each of `tokens` output tokens; None below `LEAST_S`."""
        return self.joules / tokens if tokens and self.seconds >= LEAST_S else None
