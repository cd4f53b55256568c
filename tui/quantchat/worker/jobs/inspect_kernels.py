"""Finds out which kernels of bitsandbytes and GPTQModel run on this machine.

Kernels are run if that is quick. Nothing is compiled, and no checkpoint is built.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from dataclasses import replace
from typing import Any

from quantchat.common import cuda_toolkit
from quantchat.wire.jobs import (
    UNUSABLE,
    BuildTools,
    CudaDevice,
    InspectKernelsJob,
    InspectKernelsResult,
    Kernel,
    TorchInfo,
)
from quantchat.worker.failures import on_one_line
from quantchat.worker.jobs import Report
from quantchat.worker.jobs.probes import gptq_kernels, probe_bitsandbytes


def run(job: InspectKernelsJob, report: Report) -> InspectKernelsResult:
    """Try the kernels. Changes to the scratch folder first, because GPTQModel may write there."""
    os.chdir(job.workspace.scratch)
    report(0, 3, "importing torch")
    import torch

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    tools = _tools()
    kernels: list[Kernel] = []
    broken: dict[str, str] = {}
    report(1, 3, "trying bitsandbytes")
    try:
        kernels += probe_bitsandbytes(device)
    except Exception as error:  # noqa: BLE001 - a broken installation may raise anything
        broken["bitsandbytes"] = _one_line(error)
    report(2, 3, "trying GPTQModel")
    try:
        kernels += gptq_kernels(device, tools)
    except Exception as error:  # noqa: BLE001
        broken["gptqmodel"] = _one_line(error)
    return InspectKernelsResult(_torch(torch), tools, broken, _with_auto(kernels))


def _torch(torch: Any) -> TorchInfo:
    available = bool(torch.cuda.is_available())
    devices = []
    for index in range(torch.cuda.device_count() if available else 0):
        major, minor = torch.cuda.get_device_capability(index)
        name = str(torch.cuda.get_device_name(index))
        devices.append(CudaDevice(name, f"{major}.{minor}"))
    return TorchInfo(
        version=str(torch.__version__),
        cuda=str(torch.version.cuda or ""),
        available=available,
        error=_why_not(torch) if torch.version.cuda and not available else "",
        devices=devices,
    )


def _why_not(torch: Any) -> str:
    """Return torch's error when it starts CUDA; empty if it starts."""
    try:
        torch.cuda.init()
    except RuntimeError as error:
        return on_one_line(str(error), 120)
    return ""


def _tools() -> BuildTools:
    import torch

    cuda = str(torch.version.cuda or "")
    toolkit = cuda_toolkit.use(cuda) or next(cuda_toolkit.toolkits(), None)
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = ""
    return BuildTools(
        nvcc=str(toolkit.nvcc) if toolkit else "",
        nvcc_release=toolkit.release if toolkit else "",
        lacking=cuda_toolkit.lacking(cuda) if cuda else "torch is built without CUDA",
        cxx=shutil.which(os.environ.get("CXX", "c++")) or "",
        ninja=shutil.which("ninja") or "",
        triton=triton,
    )


def _with_auto(kernels: list[Kernel]) -> list[Kernel]:
    """Return `kernels`, with `auto` set on the kernel that `auto` takes: the first usable one."""
    for place, kernel in enumerate(kernels):
        if kernel.library == "gptqmodel" and kernel.by_itself and kernel.state != UNUSABLE:
            return [*kernels[:place], replace(kernel, auto=True), *kernels[place + 1 :]]
    return kernels


def _one_line(error: BaseException) -> str:
    return on_one_line(f"{type(error).__name__}: {error}")
