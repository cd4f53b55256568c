"""Chooses the size of the calibration set if the user does not give it."""

from __future__ import annotations

from dataclasses import dataclass

from quantchat.wire.jobs import CPU_SAMPLE_TOKENS, GPU_SAMPLE_TOKENS, MIN_SAMPLES

TOKENS_PER_INPUT = 4
"""Required calibration tokens for each input of the widest layer. One token per input would give a
Hessian of full rank if tokens were independent, but the tokens of a sentence are not."""


@dataclass(frozen=True)
class CalibrationSize:
    """At least `samples` samples of up to `length` tokens each, and at least `tokens` in total.

    `tokens` is 0 if there is no minimum.
    """

    samples: int
    tokens: int
    length: int

    @property
    def full_samples(self) -> int:
        """Number of samples that are enough if each has `length` tokens."""
        return max(self.samples, -(-self.tokens // self.length))


def calibration_size(
    samples: int | None, sample_tokens: int | None, device: str, inputs: int
) -> CalibrationSize:
    """Return the calibration size for `samples` and `sample_tokens`, which the user may give.

    Where one of them is None, this function chooses the number. `inputs` is the number of inputs of
    the widest layer. On a CPU the chosen size is small for every model, because a model that is
    wide enough to need more is too slow there.
    """
    on_gpu = device.startswith("cuda")
    return CalibrationSize(
        samples=samples or MIN_SAMPLES,
        tokens=TOKENS_PER_INPUT * inputs if on_gpu and not samples else 0,
        length=sample_tokens or (GPU_SAMPLE_TOKENS if on_gpu else CPU_SAMPLE_TOKENS),
    )
