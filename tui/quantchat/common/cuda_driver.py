"""Checks whether the NVIDIA driver supports the CUDA version that torch is built for.

A driver runs programs of its own CUDA major version and of older ones ("CUDA minor version
compatibility" in NVIDIA's compatibility guide). If the driver is too old for torch, torch only
warns, and reports that there is no GPU.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

_LEAST_DRIVER = {12: 525, 13: 580}
"""Key: a CUDA major version; value: the first driver branch for it (NVIDIA's compatibility
guide)."""

OTHER_BUILD_HINT = (
    "install builds of torch and the libraries for this GPU: for a compute capability below 7.5 "
    "(V100, P100) torch for CUDA 12.6 (cu126: see https://pytorch.org/get-started/locally), for a "
    "GPU newer than the libraries newer releases of them"
)
"""Hint if a library was built without code for the GPU. CUDA 13 dropped GPUs older than Turing,
which has the compute capability 7.5."""

_VERSION = re.compile(r"^cuda: [^=]*= ['\"]([\d.]+)['\"]", re.M)


def cuda_of_torch() -> str:
    """Return the CUDA version that this interpreter's torch is built for, without importing it.

    Empty if torch has no CUDA, is not installed, or does not report its version.
    """
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return ""
    try:
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    version = _VERSION.search(text)
    return version[1] if version else ""


def too_old(driver_cuda: str | None, torch_cuda: str) -> bool:
    """Return whether a driver for CUDA `driver_cuda` is too old for a torch of CUDA `torch_cuda`.

    Both are versions such as `12.8`. False if one of them is not known.
    """
    driver, torch = _major(driver_cuda or ""), _major(torch_cuda)
    return bool(driver and torch) and driver < torch


def problem(driver_cuda: str, torch_cuda: str) -> str:
    """Return the message about a driver that is too old."""
    return (
        f"the NVIDIA driver supports CUDA {driver_cuda}, and torch is built for CUDA {torch_cuda}"
    )


def hint(torch_cuda: str) -> str:
    """Return what to do about a driver that is too old."""
    least = _LEAST_DRIVER.get(_major(torch_cuda))
    driver = f"update the driver to {least} or newer" if least else "update the driver"
    return (
        f"{driver}, or install a torch for an older CUDA (cu126 or cu128: see "
        'https://pytorch.org/get-started/locally), or use device = "cpu"'
    )


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0
