"""Code that the probes of several engines share.

A probe runs a small test layer with each kernel of an engine, for the command `doctor`.
"""

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
    """Raise ArithmeticError unless `output` is finite, with the test layer's shape (1, WIDTH)."""
    if output.shape != (1, WIDTH) or not bool(output.isfinite().all()):
        raise ArithmeticError("the kernel ran, but its results are not finite numbers")


def short(error: BaseException | None) -> str:
    """Return the message of `error` in one line, or its class if the message is empty."""
    return on_one_line(str(error)) or type(error).__name__
