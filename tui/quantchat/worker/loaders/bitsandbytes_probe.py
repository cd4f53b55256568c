"""Tries the kernels of bitsandbytes: runs a small layer of each type."""

from __future__ import annotations

from quantchat.wire.jobs import READY, UNUSABLE, BuildTools, Kernel
from quantchat.worker.loaders.probe import WIDTH, check_output, probe_dtype, short


def kernels(device: str, tools: BuildTools) -> list[Kernel]:
    """Run a layer of each type on `device`. Raises whatever the library's import raises."""
    import bitsandbytes
    from bitsandbytes.functional import has_avx512bf16

    library = type(bitsandbytes.cextension.lib).__name__
    how = "CUDA library" if device.startswith("cuda") else "processor, without AVX512-BF16"
    if device == "cpu" and has_avx512bf16():
        how = "processor, AVX512-BF16"
    if "ErrorHandler" in library:
        how = "its native library cannot be loaded"
    return [_try(kind, device, how) for kind in ("nf4", "fp4", "int8")]


def _try(kind: str, device: str, how: str) -> Kernel:
    import torch
    from bitsandbytes import nn

    dtype = probe_dtype(device)
    try:
        layer = (
            nn.Linear8bitLt(WIDTH, WIDTH, bias=False, has_fp16_weights=False)
            if kind == "int8"
            else nn.Linear4bit(WIDTH, WIDTH, bias=False, compute_dtype=dtype, quant_type=kind)
        )
        layer = layer.to(dtype).to(device).eval()
        with torch.inference_mode():
            check_output(layer(torch.ones(1, WIDTH, dtype=dtype, device=device)))
    except Exception as error:  # noqa: BLE001 - any error means that it does not run
        return Kernel("bitsandbytes", kind, UNUSABLE, f"{how}: {short(error)}")
    return Kernel("bitsandbytes", kind, READY, how)
