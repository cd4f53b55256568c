"""How much calibration there is to be where the user leaves that to quantchat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quantchat.wire.jobs import LEAST, LONG, SHORT

ENOUGH = 4
"""Tokens for each input of the widest layer. One would do for a Hessian of full rank, were tokens
independent of each other: those of a sentence are not."""


@dataclass(frozen=True)
class CalibrationSize:
    """At least `samples` of up to `length` tokens each, and so many that they have `tokens`."""

    samples: int
    tokens: int
    length: int

    @property
    def most(self) -> int:
        """Samples that it comes to where each has its full length."""
        return max(self.samples, -(-self.tokens // self.length))


def calibration_size(options: dict[str, Any], device: str, inputs: int) -> CalibrationSize:
    """What `samples` and `sample_tokens` of `options` ask for; None leaves it to be chosen here.

    `inputs` has the widest layer. On a CPU it is kept small, whatever the model: one that is wide
    enough to want more writes slowly there.
    """
    on_gpu, samples = device.startswith("cuda"), options["samples"]
    return CalibrationSize(
        samples=samples or LEAST,
        tokens=ENOUGH * inputs if on_gpu and not samples else 0,
        length=options["sample_tokens"] or (LONG if on_gpu else SHORT),
    )
