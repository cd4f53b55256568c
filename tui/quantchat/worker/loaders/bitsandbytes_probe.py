"""Tries the kernels of bitsandbytes: runs a small layer of each `quant_type`."""

from __future__ import annotations

from quantchat.wire.jobs import READY, UNUSABLE, BuildTools, Kernel
from quantchat.worker.loaders.probe import WIDTH, check_output, probe_dtype, short


def kernels(device: str, tools: BuildTools) -> list[Kernel]:
    """Run a layer of each `quant_type` on `device`, and return which of them work.

    `tools` is not used, because bitsandbytes compiles nothing. Raises whatever importing
    bitsandbytes raises.
    """
    import bitsandbytes
    from bitsandbytes.functional import has_avx512bf16

    library = type(bitsandbytes.cextension.lib).__name__
    detail = "CUDA library" if device.startswith("cuda") else "processor, without AVX512-BF16"
    if device == "cpu" and has_avx512bf16():
        detail = "processor, AVX512-BF16"
    if "ErrorHandler" in library:
        detail = "its native library cannot be loaded"
    return [_try(kind, device, detail) for kind in ("nf4", "fp4", "int8")]


def _try(kind: str, device: str, detail: str) -> Kernel:
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
    except Exception as error:  # noqa: BLE001 - any error means that the kernel does not run
        return Kernel("bitsandbytes", kind, UNUSABLE, f"{detail}: {short(error)}")
    return Kernel("bitsandbytes", kind, READY, detail)
