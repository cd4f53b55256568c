# ruff: noqa: N802, N815 - the names are NVML's own
"""The functions of NVML (NVIDIA Management Library) that are used, and messages for its errors.

Source: NVML API reference. The package nvidia-ml-py provides the module `pynvml`.
"""

from __future__ import annotations

from typing import Any, Protocol, cast


class Nvml(Protocol):
    """The part of the `pynvml` module that is used. Tests implement it with a scripted driver.

    Each function raises `NVMLError` or a subclass named after one of NVML's error codes.
    """

    NVMLError: type[Exception]
    NVMLLibraryMismatchError: type[Exception]
    nvmlMemory_v2: int

    def nvmlInit(self) -> None:
        """Load the driver's library; on a GPU without persistence mode this takes seconds."""

    def nvmlShutdown(self) -> None:
        """Undo one call of `nvmlInit`."""

    def nvmlSystemGetDriverVersion(self) -> str:
        """Return the driver version, as nvidia-smi shows it."""

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        """Return the newest CUDA version the driver supports: 1000 × major + 10 × minor."""

    def nvmlDeviceGetCount(self) -> int:
        """Return the number of GPUs (boards, not MIG instances)."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        """Return the handle of a GPU by its index in PCI order."""

    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]:
        """Return the current and the pending MIG mode; 1 means on."""

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int:
        """Return the largest number of MIG instances that the GPU can have."""

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any:
        """Return the handle of a MIG instance. Raises NotFound if `index` has no instance."""

    def nvmlDeviceGetName(self, handle: Any) -> str:
        """Return the product name."""

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> list[int]:
        """Return the major and minor number of the compute capability."""

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        """Return the UUID, `GPU-…` or `MIG-…`."""

    def nvmlDeviceGetMemoryInfo(self, handle: Any, version: int) -> Any:
        """Return `.used` (without the driver's own reserve) and `.total`, in bytes."""

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        """Return `.gpu`: percent of the last sample period in which a kernel ran."""

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:
        """Return the temperature in degrees Celsius."""

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        """Return the power of the whole board in mW."""

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        """Return the whole board's energy since the driver was loaded, in mJ; Volta and newer."""

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:
        """Return the power limit in mW."""

    def nvmlDeviceGetClockInfo(self, handle: Any, clock: int) -> int:
        """Return the frequency of a clock in MHz."""

    def nvmlDeviceGetPerformanceState(self, handle: Any) -> int:
        """Return the performance state, 0 (fastest) to 15; 32 means unknown."""

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int:
        """Return a bit mask of the reasons why the clocks are throttled."""

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: Any) -> int:
        """Return the PCIe generation of the link now; it falls while the GPU idles."""

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: Any) -> int:
        """Return the number of lanes of the link now."""

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]:
        """Return processes with a compute context: `.pid`, `.usedGpuMemory` (bytes or None)."""


def load_nvml() -> Nvml:
    """Import pynvml, which does not load the driver yet. Raises ImportError."""
    import pynvml

    return cast("Nvml", pynvml)


# Constants of nvml.h.
TEMPERATURE_GPU = 0
CLOCK_SM = 1
CLOCK_MEMORY = 2
PSTATE_UNKNOWN = 32
CLOCK_EVENTS = {
    0x02: "application clocks",
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}
"""Bit of `nvmlDeviceGetCurrentClocksEventReasons` → the reason why the clocks are throttled."""

NO_DRIVER = "no NVIDIA driver is installed"

_REASONS = {
    "NVMLError_LibraryNotFound": NO_DRIVER,
    "NVMLError_DriverNotLoaded": "the NVIDIA driver is not loaded",
    "NVMLError_LibRmVersionMismatch": "the NVIDIA driver was replaced: restart the machine",
    "NVMLError_NoPermission": "no permission to read it from the NVIDIA driver",
    "NVMLError_GpuIsLost": "the GPU is lost: it no longer answers the driver",
    "NVMLError_ResetRequired": "the GPU must be reset",
    "NVMLError_NotSupported": "this GPU or driver does not report it",
    "NVMLError_FunctionNotFound": "this driver is too old to report it",
    "NVMLLibraryMismatchError": "this driver is too old to report it",
}
"""Name of an NVML exception → its reason for the user."""


def reason_of(error: Exception) -> str:
    """Return why NVML failed, in one line."""
    return _REASONS.get(type(error).__name__) or f"NVML: {error}"
