"""The job that finds out which kernels run on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantchat.wire.jobs.job import Job, Workspace
from quantchat.wire.library import Library

KernelState = Literal["ready", "compiles first", "cannot run"]

READY: KernelState = "ready"
COMPILES: KernelState = "compiles first"
UNUSABLE: KernelState = "cannot run"
MUST_COMPILE = "must be compiled"
"""First words of `Kernel.detail` for a kernel that cannot run because there is no compiler."""


@dataclass(frozen=True)
class CudaDevice:
    """A GPU: its name as torch reports it, and its compute capability, e.g. `9.0`."""

    name: str
    capability: str


@dataclass(frozen=True)
class TorchInfo:
    """The installed torch."""

    version: str
    cuda: str
    """CUDA version for which torch was built; empty for a CPU build."""
    available: bool
    """Whether torch can use a GPU."""
    error: str
    """Why torch cannot use a GPU; empty if it can, or if it is a CPU build."""
    devices: list[CudaDevice]


@dataclass(frozen=True)
class BuildTools:
    """The tools that compile kernels: paths or versions, empty for a missing tool."""

    nvcc: str
    nvcc_release: str
    lacking: str
    """Why no kernel can be compiled; empty if one can."""
    cxx: str
    ninja: str
    triton: str


@dataclass(frozen=True)
class Kernel:
    """A kernel for quantized layers, and whether it runs on this machine."""

    library: str
    name: str
    state: KernelState
    detail: str = ""
    """Explains `state`; may be empty."""
    auto: bool = False
    """Whether `kernel = "auto"` chooses this kernel for 4-bit weights with group size 128."""
    by_itself: bool = True
    """Whether `kernel = "auto"` may choose this kernel; it chooses the first such one that runs."""


@dataclass(frozen=True)
class InspectKernelsResult:
    """Which kernels the libraries of the worker's Python interpreter can run."""

    torch: TorchInfo
    tools: BuildTools
    libraries: dict[str, str]
    """Key: name of a library that cannot be imported; value: the reason."""
    kernels: list[Kernel]


@dataclass(frozen=True)
class Loader:
    """An engine's loader, and the libraries that it imports; the first library has the kernels."""

    module: str
    """Dotted name of the loader's module."""
    libraries: list[Library]


@dataclass(frozen=True)
class InspectKernelsJob(Job[InspectKernelsResult]):
    """Try the kernels of the engines' libraries, without compiling or writing anything."""

    title = "inspect kernels"

    workspace: Workspace
    loaders: list[Loader]
    """The loaders of all engines."""
