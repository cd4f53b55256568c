"""What is known of GPTQModel's kernels without importing it: their order, which are slow."""

from __future__ import annotations

EXTENSIONS = {
    "machete": "machete",
    "marlin": "marlin_bf16",
    "exllama_v2": "exllamav2",
    "swordfish": "swordfish",
}
"""Kernels that are compiled on first use, and the extension that is; Marlin has one for float16,
`marlin_fp16`, too."""

AUTO_ON_GPU = ("marlin", "exllama_v2", "triton", "torch")
"""What `auto` tries on a GPU, the fastest first. Not Machete: a network must not decide that."""

ROW_BY_ROW = (
    "{} unpacks each weight anew for each token, so it decodes slower than 16-bit weights: "
    "speeds here compare this kernel, and not GPTQ"
)
"""What to say of a kernel that is not a fast one."""


def slow(kernel: str, cure: str) -> str:
    """What to say of a kernel by its name, and how to get a faster one; empty if it is fast."""
    if kernel in EXTENSIONS:
        return ""
    return f"{ROW_BY_ROW.format(f'the kernel {kernel}')} ({cure})"
