"""Energy of an answer, from NVML's counter (`nvmlDeviceGetTotalEnergyConsumption`).

The counter covers the whole board, including idle power. It describes one variant only while
nothing else runs on the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_S = 1.0
"""Shortest time, in s, for which energy is reported, because the counter moves in steps."""


@dataclass(frozen=True)
class Energy:
    """Energy that the GPU boards of a variant used while it alone answered."""

    joules: float
    """Energy in J of all GPUs of the variant, idle power included."""
    seconds: float
    """Time from sending the prompt to the end of the answer, including prefill."""

    def per_token(self, tokens: int) -> float | None:
        """Return the energy in J per output token; None for a time below `LEAST_S`."""
        return self.joules / tokens if tokens and self.seconds >= LEAST_S else None
