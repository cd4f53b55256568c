# ruff: noqa: N802, N815 - the names are NVML's own
"""An NVIDIA driver that consists of plain data. It implements `quantchat.system.nvml.Nvml`.

Its errors are pynvml's own, so that tests take the same error paths as a real driver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

GIB = 2**30


@dataclass
class FakeGpu:
    """A GPU; `refused` maps the name of an NVML function to the error that it raises."""

    name: str = "NVIDIA H100 80GB HBM3"
    uuid: str = "GPU-0"
    capability: tuple[int, int] = (9, 0)
    used: int = 10 * GIB
    total: int = 80 * GIB
    processes: list[tuple[int, int | None]] = field(default_factory=list)
    """(pid, bytes)"""
    refused: dict[str, Exception] = field(default_factory=dict)
    instances: list[FakeGpu | None] = field(default_factory=list)
    """MIG instances; None is a free place."""
    events: int = 0
    energy_mj: int = 0
    clock_mhz: int = 1980
    temperature_c: int = 41


class FakeNvml:
    """The functions of the `pynvml` module that quantchat calls."""

    NVMLError = pynvml.NVMLError
    NVMLLibraryMismatchError = pynvml.NVMLLibraryMismatchError
    nvmlMemory_v2 = pynvml.nvmlMemory_v2

    def __init__(self, *gpus: FakeGpu, init_error: Exception | None = None) -> None:
        self.gpus = list(gpus)
        self.init_error = init_error
        self.calls: list[str] = []
        self.open = 0

    def _answer(self, function: str, gpu: FakeGpu, value: Any) -> Any:
        self.calls.append(function)
        if function in gpu.refused:
            raise gpu.refused[function]
        if "everything" in gpu.refused:
            raise gpu.refused["everything"]
        return value

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise self.init_error
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.95.05"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 13_000

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        gpu = self.gpus[index]
        return self._answer("nvmlDeviceGetHandleByIndex", gpu, gpu)  # type: ignore[no-any-return]

    def nvmlDeviceGetMigDeviceHandleByIndex(self, board: FakeGpu, index: int) -> FakeGpu:
        instance = board.instances[index]
        if instance is None:
            raise nvml_error("NOT_FOUND")
        return instance

    def __getattr__(self, function: str) -> Any:
        """The functions of one GPU that only look something up."""
        values: dict[str, Callable[[FakeGpu], Any]] = {
            "nvmlDeviceGetMigMode": lambda g: [int(bool(g.instances))] * 2,
            "nvmlDeviceGetMaxMigDeviceCount": lambda g: len(g.instances),
            "nvmlDeviceGetName": lambda g: g.name,
            "nvmlDeviceGetCudaComputeCapability": lambda g: list(g.capability),
            "nvmlDeviceGetUUID": lambda g: g.uuid,
            "nvmlDeviceGetMemoryInfo": lambda g: SimpleNamespace(used=g.used, total=g.total),
            "nvmlDeviceGetUtilizationRates": lambda g: SimpleNamespace(gpu=37, memory=12),
            "nvmlDeviceGetTemperature": lambda g: g.temperature_c,
            "nvmlDeviceGetPowerUsage": lambda g: 312_500,
            "nvmlDeviceGetTotalEnergyConsumption": lambda g: g.energy_mj,
            "nvmlDeviceGetCurrPcieLinkGeneration": lambda g: 5,
            "nvmlDeviceGetCurrPcieLinkWidth": lambda g: 16,
            "nvmlDeviceGetEnforcedPowerLimit": lambda g: 700_000,
            "nvmlDeviceGetClockInfo": lambda g: g.clock_mhz,
            "nvmlDeviceGetPerformanceState": lambda g: 0,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda g: g.events,
            "nvmlDeviceGetComputeRunningProcesses": lambda g: [
                SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in g.processes
            ],
        }
        if function not in values:
            raise AttributeError(function)
        return lambda gpu, *arguments: self._answer(function, gpu, values[function](gpu))


def nvml_error(name: str) -> Exception:
    """Return pynvml's error for NVML's error code `name`, e.g. `NOT_SUPPORTED`."""
    error_class: type[Exception] = pynvml.NVMLError
    return error_class(getattr(pynvml, f"NVML_ERROR_{name}"))
