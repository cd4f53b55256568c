"""Which 4-bit layers bitsandbytes repacks for its CPU kernel (AVX512-BF16)."""

from __future__ import annotations

_OUTPUTS, _INPUTS = 32, 64
"""A layer can be repacked if its numbers of outputs and inputs are multiples of these. bitsandbytes
0.50 fails for other layers (`_convert_weight_packed_for_cpu`)."""


def is_repackable(outputs: int, inputs: int) -> bool:
    """Return whether bitsandbytes can repack a 4-bit layer with so many outputs and inputs."""
    return outputs % _OUTPUTS == 0 and inputs % _INPUTS == 0
