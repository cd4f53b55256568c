"""Samples GPUs, processor and memory. A sample is cheap enough to take one twice a second."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from quantchat.system.gpus import Gpus, GpuSample
from quantchat.system.host import Host, HostSample, ProcessTree
from quantchat.system.process_memory import ProcessMemory, gpu_memory, on_gpu, resident_memory
from quantchat.wire.variant import EXTERNAL_SERVER, STARTED_SERVER, Ledger


@dataclass(frozen=True)
class DeviceSample:
    """The machine at one moment."""

    at_s: float
    """Time in s on the monotonic clock of quantchat's own process."""
    host: HostSample
    """Processor and main memory."""
    gpus: list[GpuSample]
    """Each GPU, or each MIG instance of a GPU that is divided into some; empty if there is no
    GPU."""
    no_gpu: str = ""
    """Why `gpus` is empty; empty if there is a GPU."""
    driver: str | None = None
    """Version of the NVIDIA driver; None if not known."""
    cuda: str | None = None
    """Newest CUDA version that the driver supports; None if not known."""


class DeviceSampler:
    """Samples the machine. The first sample opens the GPU driver, which may take seconds.

    May be called from any thread, but from only one at a time.
    """

    def __init__(self, gpus: Gpus | None = None) -> None:
        self._gpus = gpus or Gpus()
        self._host = Host()
        self._trees: dict[int, ProcessTree] = {}

    def sample(self) -> DeviceSample:
        """Return a sample of the machine."""
        gpus = self._gpus.sample()
        return DeviceSample(
            at_s=time.monotonic(),
            host=self._host.sample(),
            gpus=gpus,
            no_gpu=self._gpus.reason,
            driver=self._gpus.driver,
            cuda=self._gpus.cuda,
        )

    def process_memory(self, pid: int, ledger: Ledger) -> ProcessMemory:
        """Return the memory of the worker `pid`, from the best source for `ledger.device`."""
        if ledger.device == EXTERNAL_SERVER:
            return ProcessMemory(None, "unknown", "the server does not report its memory")
        if on_gpu(ledger):
            return gpu_memory(self._gpus.process_memory(pid), ledger)
        tree = self._trees.setdefault(pid, ProcessTree(pid))
        resident = tree.resident()
        if resident is None:
            del self._trees[pid]
        elif ledger.device == STARTED_SERVER:
            reading = self._gpus.process_memory(*tree.pids)
            if reading.bytes:
                return ProcessMemory(reading.bytes, "nvml")
        return resident_memory(resident)

    def energy_mj(self, *devices: str) -> int | None:
        """Return the sum of the energy counters of `devices`, such as `cuda:0`, in mJ.

        None if one of them has no counter.
        """
        found = [self._energy_mj(device) for device in devices]
        known = [energy for energy in found if energy is not None]
        return sum(known) if found and len(known) == len(found) else None

    def _energy_mj(self, device: str) -> int | None:
        kind, _, number = device.partition(":")
        return self._gpus.energy_mj(int(number or 0)) if kind == "cuda" else None

    def process_tree(self, pid: int) -> set[int]:
        """Return `pid` and the pids of its descendants, as of the last scan."""
        tree = self._trees.setdefault(pid, ProcessTree(pid))
        if tree.resident() is None:
            del self._trees[pid]
        return {pid, *tree.pids}

    def foreign_processes(self, gpu: GpuSample, own: Collection[int], own_count: int) -> int:
        """Return how many processes other than ours use `gpu`.

        `own` has the ids of our processes. `own_count` is the number of our processes with a
        context on `gpu`; it is used if NVML lists the host's ids (in a container).
        """
        return self._gpus.foreign_processes(gpu, own, own_count)

    def close(self) -> None:
        """Close the GPU driver. May be called twice."""
        self._gpus.close()
