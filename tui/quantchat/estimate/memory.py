"""The memory estimate of a variant that is not loaded yet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """Memory of one variant in bytes: device memory on a GPU, process memory on the CPU."""

    cuda: bool
    """Whether the estimate is for a GPU; else it is for the CPU."""
    dtype: str
    """Dtype of unquantized weights, activations and the KV cache."""
    weights: int
    """The weights, including what the quantization adds."""
    overhead: dict[str, int]
    """Part of `weights` that the quantization adds, by kind: scales, zeros, codebook, indices."""
    unquantized: int
    """Part of `weights` that is not quantized."""
    context_tokens: int
    """Tokens of prompt and answer for which `kv_cache` is computed."""
    kv_cache: int
    """Size of the keys and values of `context_tokens`; -1 if the config does not give the shape."""
    activations: int
    """Assumed size of the activations during prefill."""
    runtime: int
    """Assumed size of the CUDA context, or on the CPU of the interpreter and its libraries."""
    loading: int
    """Assumed memory that is needed, besides the weights, while they are loaded."""
    draft: int = 0
    """Weights and KV cache of the model that drafts tokens; 0 without one."""

    @property
    def total(self) -> int:
        """Memory of the loaded variant at the end of a context of `context_tokens`."""
        return self._fixed + max(0, self.kv_cache) + self.activations

    @property
    def peak(self) -> int:
        """Peak memory, during or after loading."""
        return max(self.total, self._fixed + self.loading)

    def of_batch(self, batch: int) -> int:
        """Return the memory of the loaded variant with a batch of `batch` full contexts."""
        each = max(0, self.kv_cache) + self.activations
        return self._fixed + batch * each

    @property
    def _fixed(self) -> int:
        return self.runtime + self.weights + self.draft
