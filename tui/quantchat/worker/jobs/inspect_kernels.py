"""Which kernels of bitsandbytes and GPTQModel run on this machine, tried where that is quick.

No job of making a checkpoint: it only looks. Nothing is compiled for it.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from typing import Any

from quantchat.common import cuda_toolkit
from quantchat.wire.jobs import UNUSABLE
from quantchat.worker.failures import on_one_line
from quantchat.worker.jobs import Report
from quantchat.worker.jobs.probes import Kernel, gptq_kernels, probe_bitsandbytes


def run(options: dict[str, Any], report: Report) -> dict[str, Any]:
    """Look, with `scratch` as the current folder: GPTQModel may write into that.

    Result: `torch` (version, the CUDA it was built for, whether CUDA is available, the error if
    not, devices), `tools` (nvcc, its release, a C++ compiler, ninja, Triton; empty where missing;
    `lacking`: why no kernel can be compiled), `libraries` that cannot be imported, with the reason,
    and `kernels`: library, name, state (`ready`, `compiles first` or `cannot run`), a word on it,
    and whether it is what `auto` takes.
    """
    os.chdir(options["scratch"])
    report(0, 3, "importing torch")
    import torch

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    tools = _tools()
    kernels: list[Kernel] = []
    broken: dict[str, str] = {}
    report(1, 3, "trying bitsandbytes")
    try:
        kernels += probe_bitsandbytes(device)
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is asked for
        broken["bitsandbytes"] = _one_line(error)
    report(2, 3, "trying GPTQModel")
    try:
        kernels += gptq_kernels(device, tools)
    except Exception as error:  # noqa: BLE001
        broken["gptqmodel"] = _one_line(error)
    _mark_auto(kernels)
    return {
        "torch": _torch(torch),
        "tools": tools,
        "libraries": broken,
        "kernels": [vars(kernel) for kernel in kernels],
    }


def _torch(torch: Any) -> dict[str, Any]:
    available = bool(torch.cuda.is_available())
    devices = []
    for index in range(torch.cuda.device_count() if available else 0):
        major, minor = torch.cuda.get_device_capability(index)
        name = str(torch.cuda.get_device_name(index))
        devices.append({"name": name, "capability": f"{major}.{minor}"})
    return {
        "version": str(torch.__version__),
        "cuda": str(torch.version.cuda or ""),
        "available": available,
        "error": _why_not(torch) if torch.version.cuda and not available else "",
        "devices": devices,
    }


def _why_not(torch: Any) -> str:
    """What torch says when it is made to start CUDA."""
    try:
        torch.cuda.init()
    except RuntimeError as error:
        return on_one_line(str(error), 120)
    return ""


def _tools() -> dict[str, str]:
    import torch

    cuda = str(torch.version.cuda or "")
    toolkit = cuda_toolkit.use(cuda) or next(cuda_toolkit.toolkits(), None)
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = ""
    return {
        "nvcc": str(toolkit.nvcc) if toolkit else "",
        "nvcc_release": toolkit.release if toolkit else "",
        "lacking": cuda_toolkit.lacking(cuda) if cuda else "torch is built without CUDA",
        "c++": shutil.which(os.environ.get("CXX", "c++")) or "",
        "ninja": shutil.which("ninja") or "",
        "triton": triton,
    }


def _mark_auto(kernels: list[Kernel]) -> None:
    """Say which `auto` takes: the first in order that can run, compiled if it must."""
    for kernel in kernels:
        if kernel.library == "gptqmodel" and kernel.by_itself and kernel.state != UNUSABLE:
            kernel.auto = True
            return


def _one_line(error: BaseException) -> str:
    return on_one_line(f"{type(error).__name__}: {error}")
