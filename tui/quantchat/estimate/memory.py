"""The memory that a variant will need, as it is estimated before the variant is loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """The memory of one variant, in bytes; on a GPU of the device, on the CPU of the process."""

    cuda: bool
    dtype: str
    """Of what is not quantized, of activations and of the KV cache."""
    weights: int
    overhead: dict[str, int]
    """What of the weights is the quantization's own: scales, zeros, codebook, indices."""
    unquantized: int
    """What of the weights is not quantized."""
    context_tokens: int
    """Tokens of prompt and answer that the KV cache is reckoned for."""
    kv_cache: int
    """-1 where the config does not tell."""
    activations: int
    """An allowance: while a prompt is computed."""
    runtime: int
    """An allowance: the CUDA context, or on the CPU the interpreter with its libraries."""
    loading: int
    """An allowance: what is held beyond the weights while they are being loaded."""

    @property
    def total(self) -> int:
        """Loaded, and at the end of a context of `context_tokens`."""
        return self.runtime + self.weights + max(0, self.kv_cache) + self.activations

    @property
    def peak(self) -> int:
        """The most, while it is loading or after."""
        return max(self.total, self.runtime + self.weights + self.loading)
