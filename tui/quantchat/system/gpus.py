"""Reads the GPUs of this machine, and a process's memory on them, from NVML.

Nothing here raises for a missing driver, a lost GPU or an unsupported figure: the figure is None,
and the reason is reported with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from quantchat.system.nvml import (
    CLOCK_EVENTS,
    CLOCK_MEMORY,
    CLOCK_SM,
    PSTATE_UNKNOWN,
    TEMPERATURE_GPU,
    Nvml,
    load_nvml,
    reason_of,
)
from quantchat.system.visible_gpus import gpus_visible_here

HOST_PIDS = "NVML lists the host's process ids, among which a container cannot find its own"
NOT_LISTED = "NVML does not list the process"
ZERO = "NVML lists the process with 0 bytes, as some drivers do inside a container"
NOT_AVAILABLE = "NVML has no memory figure for each process here (as with MIG, WSL or WDDM)"


@dataclass(frozen=True)
class GpuSample:
    """One GPU, or one MIG instance, at one moment. None means unknown; `missing` has the reason.

    Power, temperature and clocks of a MIG instance are those of its whole board.
    """

    index: int
    """Index of the board in PCI order, as nvidia-smi counts."""
    uuid: str
    """NVML's id of the GPU or MIG instance; empty if unknown."""
    name: str
    """Product name; `GPU` and the index if unknown."""
    mig: bool = False
    """Whether it is a MIG instance."""
    capability: tuple[int, int] | None = None
    """CUDA's compute capability, major and minor."""
    memory_used: int | None = None
    """Bytes used by all processes together."""
    memory_total: int | None = None
    """Bytes of device memory."""
    utilisation: int | None = None
    """Percent of the last sample period in which a kernel ran."""
    temperature_c: int | None = None
    """Temperature of the chip in °C."""
    power_w: float | None = None
    """Power draw in W."""
    power_limit_w: float | None = None
    """Enforced power limit in W."""
    sm_clock_mhz: int | None = None
    """Clock of the multiprocessors in MHz."""
    memory_clock_mhz: int | None = None
    """Clock of the memory in MHz."""
    pstate: str | None = None
    """Performance state; P0 is the fastest."""
    throttle: list[str] | None = None
    """Reasons why the clocks are throttled; empty if they are not."""
    pcie_generation: int | None = None
    """PCIe generation of the link now; it falls while the GPU idles. NVML's PCIe throughput is not
    read, because each reading takes 20 ms."""
    pcie_width: int | None = None
    """Lanes of the link now."""
    processes: list[int] | None = None
    """Ids of the processes with a compute context; in a container these are the host's ids."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a figure is None, by the name of its field."""

    @property
    def memory_free(self) -> int | None:
        """Free memory in bytes; None if unknown."""
        if self.memory_total is None or self.memory_used is None:
            return None
        return self.memory_total - self.memory_used


def lowest_capability(gpus: Iterable[GpuSample]) -> tuple[int, int] | None:
    """Return the lowest compute capability of `gpus`; None if none of them is known."""
    return min((gpu.capability for gpu in gpus if gpu.capability), default=None)


@dataclass(frozen=True)
class ProcessReading:
    """Memory of processes as NVML reports it: `bytes`, or None and the reason."""

    bytes: int | None
    reason: str = ""


def is_foreign(pid: int) -> bool:
    """Return whether `pid` is an id of another pid namespace: ours has no process with this id.

    Always False in the machine's first pid namespace: an unknown pid there is a process that has
    just died, but that NVML still lists.
    """
    return not _in_first_pid_namespace() and not psutil.pid_exists(pid)


def _in_first_pid_namespace() -> bool:
    # The kernel gives the first namespace a fixed inode: PROC_PID_INIT_INO, linux/proc_ns.h.
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC
    except OSError:
        return True


class Gpus:
    """The GPUs of this machine. The first call opens NVML; a failure to open it is remembered."""

    def __init__(
        self,
        load: Callable[[], Nvml] = load_nvml,
        foreign: Callable[[int], bool] = is_foreign,
    ) -> None:
        self._load = load
        self._foreign = foreign
        self._driver: _Driver | None = None
        self._reason = ""

    @property
    def driver(self) -> str | None:
        """Version of the NVIDIA driver; None while NVML is not open."""
        return self._driver.version if self._driver else None

    @property
    def cuda(self) -> str | None:
        """Newest CUDA version that the driver supports; None while NVML is not open."""
        return self._driver.cuda if self._driver else None

    @property
    def reason(self) -> str:
        """Why there are no GPUs; empty if there are some, and before NVML is first opened."""
        return self._reason

    def sample(self) -> list[GpuSample]:
        """Return a sample of each GPU; empty, with `reason` set, if there is none."""
        driver = self._open_driver()
        return [driver.sample(gpu) for gpu in driver.gpus] if driver else []

    def process_memory(self, *pids: int) -> ProcessReading:
        """Return the device memory of the processes `pids`, summed over all GPUs."""
        driver = self._open_driver()
        if driver is None or not driver.gpus:
            return ProcessReading(None, self._reason)
        listed, refusal = driver.processes()
        if any(self._foreign(process.pid) for process in listed):
            # The ids are the host's, so an equal id would belong to some other process.
            return ProcessReading(None, HOST_PIDS)
        used = [process.usedGpuMemory for process in listed if process.pid in pids]
        if not used:
            return ProcessReading(None, refusal or NOT_LISTED)
        if None in used:
            return ProcessReading(None, NOT_AVAILABLE)
        if 0 in used:
            return ProcessReading(None, ZERO)
        return ProcessReading(sum(used))

    def energy_mj(self, number: int) -> int | None:
        """Return the energy counter, in mJ, of the GPU that CUDA calls `cuda:number`.

        None if it is unknown, and for a MIG instance, because the counter is its whole board's.
        """
        driver = self._open_driver()
        shown = gpus_visible_here(driver.gpus if driver else [])
        if driver is None or number >= len(shown) or shown[number].mig:
            return None
        return driver.energy_mj(shown[number])

    def foreign_processes(self, gpu: GpuSample, own: Collection[int], own_count: int) -> int:
        """Return the number of processes on `gpu` that are not in `own`.

        If NVML lists the host's ids, they cannot be compared with `own`: then return how many more
        processes there are than `own_count`, the number of our processes with a context on `gpu`. A
        process may have a context on a GPU that it does not use: reading the free memory creates
        one.
        """
        listed = gpu.processes or []
        if any(self._foreign(pid) for pid in listed):
            return max(0, len(listed) - own_count)
        return len(set(listed) - set(own))

    def close(self) -> None:
        """Close NVML. May be called twice; a later call opens it again."""
        driver, self._driver, self._reason = self._driver, None, ""
        if driver is not None:
            driver.close()

    def _open_driver(self) -> _Driver | None:
        if self._driver is None and not self._reason:
            try:
                nvml = self._load()
            except ImportError as error:
                self._reason = f"nvidia-ml-py cannot be imported: {error}"
                return None
            try:
                nvml.nvmlInit()
            except nvml.NVMLError as error:
                self._reason = reason_of(error)
                return None
            self._driver = _Driver(nvml)
            self._reason = self._driver.no_gpu
        return self._driver


@dataclass(frozen=True)
class _Gpu:
    """The properties of a GPU that do not change while quantchat runs."""

    handle: Any
    board: Any
    """Handle of the board; equal to `handle` except for a MIG instance."""
    index: int
    uuid: str
    name: str
    mig: bool
    capability: tuple[int, int] | None
    power_limit_w: float | None


_T = TypeVar("_T")


class _Driver:
    """An open NVML and the GPUs that it lists."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        missing: dict[str, str] = {}
        self.version = self._ask(missing, "version", nvml.nvmlSystemGetDriverVersion)
        cuda = self._ask(missing, "cuda", nvml.nvmlSystemGetCudaDriverVersion_v2)
        self.cuda = None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}"
        self.gpus: list[_Gpu] = []
        for index in range(self._ask(missing, "gpus", nvml.nvmlDeviceGetCount) or 0):
            board = self._ask(missing, "gpus", nvml.nvmlDeviceGetHandleByIndex, index)
            if board is not None:
                instances = self._mig_instances(board)
                for handle in instances or [board]:
                    self.gpus.append(self._describe(handle, board, index, bool(instances)))
        self.no_gpu = "" if self.gpus else missing.get("gpus", "the NVIDIA driver finds no GPU")
        """Why there is no GPU; empty if there is one."""

    def close(self) -> None:
        self._ask({}, "shutdown", self._nvml.nvmlShutdown)

    def sample(self, gpu: _Gpu) -> GpuSample:
        nvml = self._nvml
        missing: dict[str, str] = {}

        def ask(name: str, function: Callable[..., _T], *arguments: Any) -> _T | None:
            return self._ask(missing, name, function, *arguments)

        memory = ask("memory_used", nvml.nvmlDeviceGetMemoryInfo, gpu.handle, nvml.nvmlMemory_v2)
        rates = ask("utilisation", nvml.nvmlDeviceGetUtilizationRates, gpu.handle)
        temperature = ask(
            "temperature_c", nvml.nvmlDeviceGetTemperature, gpu.board, TEMPERATURE_GPU
        )
        power_mw = ask("power_w", nvml.nvmlDeviceGetPowerUsage, gpu.board)
        sm_clock = ask("sm_clock_mhz", nvml.nvmlDeviceGetClockInfo, gpu.board, CLOCK_SM)
        memory_clock = ask("memory_clock_mhz", nvml.nvmlDeviceGetClockInfo, gpu.board, CLOCK_MEMORY)
        pstate = ask("pstate", nvml.nvmlDeviceGetPerformanceState, gpu.board)
        events = ask("throttle", nvml.nvmlDeviceGetCurrentClocksEventReasons, gpu.board)
        processes = ask("processes", nvml.nvmlDeviceGetComputeRunningProcesses, gpu.handle)
        return GpuSample(
            index=gpu.index,
            uuid=gpu.uuid,
            name=gpu.name,
            mig=gpu.mig,
            capability=gpu.capability,
            memory_used=None if memory is None else memory.used,
            memory_total=None if memory is None else memory.total,
            utilisation=None if rates is None else rates.gpu,
            temperature_c=temperature,
            power_w=_from_milli(power_mw),
            power_limit_w=gpu.power_limit_w,
            sm_clock_mhz=sm_clock,
            memory_clock_mhz=memory_clock,
            pstate=None if pstate in (None, PSTATE_UNKNOWN) else f"P{pstate}",
            throttle=None
            if events is None
            else [n for bit, n in CLOCK_EVENTS.items() if events & bit],
            pcie_generation=ask(
                "pcie_generation", nvml.nvmlDeviceGetCurrPcieLinkGeneration, gpu.board
            ),
            pcie_width=ask("pcie_width", nvml.nvmlDeviceGetCurrPcieLinkWidth, gpu.board),
            processes=None if processes is None else sorted({one.pid for one in processes}),
            missing=missing,
        )

    def energy_mj(self, gpu: _Gpu) -> int | None:
        return self._ask({}, "energy", self._nvml.nvmlDeviceGetTotalEnergyConsumption, gpu.board)

    def processes(self) -> tuple[list[Any], str]:
        """Return the compute processes on all GPUs, and why some could not be read, or ""."""
        missing: dict[str, str] = {}
        found: list[Any] = []
        for gpu in self.gpus:
            function = self._nvml.nvmlDeviceGetComputeRunningProcesses
            found += self._ask(missing, "processes", function, gpu.handle) or []
        return found, missing.get("processes", "")

    def _mig_instances(self, board: Any) -> list[Any]:
        nvml = self._nvml
        mode = self._ask({}, "mode", nvml.nvmlDeviceGetMigMode, board)
        if not mode or not mode[0]:
            return []
        most = self._ask({}, "count", nvml.nvmlDeviceGetMaxMigDeviceCount, board) or 0
        handles = [
            self._ask({}, "handle", nvml.nvmlDeviceGetMigDeviceHandleByIndex, board, index)
            for index in range(most)
        ]
        return [handle for handle in handles if handle is not None]

    def _describe(self, handle: Any, board: Any, index: int, mig: bool) -> _Gpu:
        nvml = self._nvml
        capability = self._ask({}, "capability", nvml.nvmlDeviceGetCudaComputeCapability, board)
        return _Gpu(
            handle=handle,
            board=board,
            index=index,
            uuid=self._ask({}, "uuid", nvml.nvmlDeviceGetUUID, handle) or "",
            name=self._ask({}, "name", nvml.nvmlDeviceGetName, handle) or f"GPU {index}",
            mig=mig,
            capability=None if capability is None else (capability[0], capability[1]),
            power_limit_w=_from_milli(
                self._ask({}, "limit", nvml.nvmlDeviceGetEnforcedPowerLimit, board)
            ),
        )

    def _ask(
        self, missing: dict[str, str], name: str, function: Callable[..., _T], *arguments: Any
    ) -> _T | None:
        """Return `function(*arguments)`; on an NVML error None, its reason in `missing[name]`."""
        try:
            return function(*arguments)
        except (self._nvml.NVMLError, self._nvml.NVMLLibraryMismatchError) as error:
            missing[name] = reason_of(error)
            return None


def _from_milli(value: int | None) -> float | None:
    return None if value is None else value / 1000
