"""Facts about GPTQModel's kernels, known without importing it: their order, and which are slow."""

from __future__ import annotations

EXTENSIONS = {
    "machete": "machete",
    "marlin": "marlin_bf16",
    "exllama_v2": "exllamav2",
    "swordfish": "swordfish",
}
"""The fast kernels, which are compiled on first use. Key: the kernel; value: the name of its C++
extension. Marlin has a second extension for float16, `marlin_fp16`."""

GPTQ_ON_GPU = ("marlin", "exllama_v2", "triton", "torch")
AWQ_ON_GPU = ("marlin", "exllama_v2", "gemm_triton", "torch")
"""Kernels that `kernel = "auto"` tries on a GPU, the fastest first; for GPTQ and for AWQ.

Machete is left out, because it is downloaded, and the network must not decide which kernel runs.
"""

SLOW_KERNEL_NOTE = (
    "{} unpacks each weight anew for each token, so it decodes slower than 16-bit weights: "
    "measured speeds are those of this kernel, and not of GPTQ"
)
"""Note on a slow kernel; `{}` is replaced by its name."""


def slow_kernel_note(kernel: str, hint: str) -> str:
    """Return a note that `kernel` is slow, followed by `hint`; empty if the kernel is fast."""
    if kernel in EXTENSIONS:
        return ""
    return f"{SLOW_KERNEL_NOTE.format(f'the kernel {kernel}')} ({hint})"
