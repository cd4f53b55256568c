"""Chooses the size of the calibration set if the user does not give it."""

from __future__ import annotations

from dataclasses import dataclass

from quantchat.wire.jobs import CPU_SAMPLE_TOKENS, GPU_SAMPLE_TOKENS, MIN_SAMPLES

ENOUGH = 4
"""Tokens for each input of the widest layer. With independent tokens, one for each input would give
a Hessian of full rank, but the tokens of a sentence are not independent."""


@dataclass(frozen=True)
class CalibrationSize:
    """At least `samples` samples of up to `length` tokens each, and at least `tokens` in all."""

    samples: int
    tokens: int
    length: int

    @property
    def most(self) -> int:
        """Number of samples if each has its full length."""
        return max(self.samples, -(-self.tokens // self.length))


def calibration_size(
    samples: int | None, sample_tokens: int | None, device: str, inputs: int
) -> CalibrationSize:
    """Return the calibration size for `samples` and `sample_tokens`; for None, choose a number.

    `inputs` is the width of the widest layer. On a CPU the chosen size is small for every model: a
    model that is wide enough to need more is too slow on a CPU.
    """
    on_gpu = device.startswith("cuda")
    return CalibrationSize(
        samples=samples or MIN_SAMPLES,
        tokens=ENOUGH * inputs if on_gpu and not samples else 0,
        length=sample_tokens or (GPU_SAMPLE_TOKENS if on_gpu else CPU_SAMPLE_TOKENS),
    )
