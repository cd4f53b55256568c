"""What the engines' probes share: a small layer is run on each kernel, and its output checked."""

from __future__ import annotations

from typing import Any

from quantchat.worker.failures import on_one_line

WIDTH = 256
"""Inputs and outputs of the test layer: a multiple of every kernel's tile and group size."""


def probe_dtype(device: str) -> Any:
    """Return the `torch.dtype` in which kernels are tried on `device`."""
    import torch

    modern = device == "cpu" or torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if modern else torch.float16


def check_output(output: Any) -> None:
    """Raise ArithmeticError if `output` is no output of the test layer: (1, WIDTH), finite."""
    if output.shape != (1, WIDTH) or not bool(output.isfinite().all()):
        raise ArithmeticError("it ran, but its results are no numbers")


def short(error: BaseException | None) -> str:
    """Return `error` in one line."""
    return on_one_line(str(error)) or type(error).__name__
