"""Facts about GPTQModel's kernels that need no import of it: their order, and which are slow."""

from __future__ import annotations

EXTENSIONS = {
    "machete": "machete",
    "marlin": "marlin_bf16",
    "exllama_v2": "exllamav2",
    "swordfish": "swordfish",
}
"""Kernels that are compiled on first use, with their extension; Marlin has a second one for
float16, `marlin_fp16`."""

AUTO_ON_GPU = ("marlin", "exllama_v2", "triton", "torch")
AWQ_ON_GPU = ("marlin", "exllama_v2", "gemm_triton", "torch")
"""Kernels that `auto` tries on a GPU for GPTQ (`AUTO_ON_GPU`) and AWQ, the fastest first.

Machete is left out, because it is downloaded, and the network must not decide which kernel runs.
"""

ROW_BY_ROW = (
    "{} unpacks each weight anew for each token, so it decodes slower than 16-bit weights: "
    "speeds here compare this kernel, and not GPTQ"
)
"""Note on a slow kernel."""


def slow(kernel: str, cure: str) -> str:
    """Return a note on the kernel `kernel` and how to get a faster one; empty if it is fast."""
    if kernel in EXTENSIONS:
        return ""
    return f"{ROW_BY_ROW.format(f'the kernel {kernel}')} ({cure})"
