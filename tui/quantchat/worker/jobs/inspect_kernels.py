"""Finds out which kernels of the engines' libraries work on this machine.

A kernel is run once if that is quick. Nothing is compiled, and no checkpoint is built.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

from quantchat.common import cuda_toolkit
from quantchat.wire.jobs import (
    BuildTools,
    CudaDevice,
    InspectKernelsJob,
    InspectKernelsResult,
    Kernel,
    Loader,
    TorchInfo,
)
from quantchat.worker.failures import on_one_line
from quantchat.worker.report import Report


def run(job: InspectKernelsJob, report: Report) -> InspectKernelsResult:
    """Try the kernels of each loader on this machine, and report the progress.

    First the scratch folder becomes the current folder, because some libraries write files into the
    current folder.
    """
    os.chdir(job.workspace.scratch)
    report(0, len(job.loaders) + 1, "importing torch")
    import torch

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    tools = _tools()
    kernels: list[Kernel] = []
    broken: dict[str, str] = {}
    tried = [(loader, probe) for loader in job.loaders if (probe := _probe(loader))]
    for number, (loader, probe) in enumerate(tried, 1):
        package = loader.libraries[0].package
        report(number, len(tried) + 1, f"trying {package}")
        try:
            kernels += probe(device, tools)
        except Exception as error:  # noqa: BLE001 - a broken installation may raise anything
            broken[package] = _one_line(error)
    return InspectKernelsResult(_torch(torch), tools, broken, kernels)


def _probe(loader: Loader) -> Callable[[str, BuildTools], list[Kernel]] | None:
    """Return the function `kernels` of the engine's loader module, which tries the kernels.

    Return None if the module has no such function, or if a library of the engine is not installed.
    """
    for library in loader.libraries:
        if not library.dependency and importlib.util.find_spec(library.module) is None:
            return None
    try:
        module = importlib.import_module(loader.module)
    except ModuleNotFoundError:  # the engine's plug-in package is not in this interpreter
        return None
    probe: Callable[[str, BuildTools], list[Kernel]] | None = getattr(module, "kernels", None)
    return probe


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
        error=_cuda_error(torch) if torch.version.cuda and not available else "",
        devices=devices,
    )


def _cuda_error(torch: Any) -> str:
    """Return torch's error when it initializes CUDA; empty if that works."""
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
        lacking=cuda_toolkit.build_problem(cuda) if cuda else "torch is built without CUDA",
        cxx=shutil.which(os.environ.get("CXX", "c++")) or "",
        ninja=shutil.which("ninja") or "",
        triton=triton,
    )


def _one_line(error: BaseException) -> str:
    return on_one_line(f"{type(error).__name__}: {error}")
