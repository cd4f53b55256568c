"""A machine with given figures: with a GPU or without, and workers of known size."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from quantchat.system.gpus import GpuSample
from quantchat.system.host import HostSample
from quantchat.system.process_memory import ProcessMemory
from quantchat.system.sampler import DeviceSample, DeviceSampler
from quantchat.wire.variant import EXTERNAL_SERVER, STARTED_SERVER, Ledger

GIB = 2**30

GPU = GpuSample(
    index=0,
    uuid="GPU-0",
    name="NVIDIA GeForce RTX 4090",
    memory_used=int(9.8 * GIB),
    memory_total=24 * GIB,
    utilisation=97,
    temperature_c=62,
    power_w=311.0,
    power_limit_w=450.0,
    throttle=[],
)
HOST = HostSample(
    cpu="AMD EPYC 7B13 64-Core Processor",
    cores=2,
    cpu_percent=98.0,
    ram_used=int(3.1 * GIB),
    ram_total=int(7.8 * GIB),
)


class ScriptedMachine(DeviceSampler):
    """A sampler that takes the memory of each worker from the worker's own ledger.

    For a server it reads the memory of the real processes.
    """

    def __init__(self, *gpus: GpuSample) -> None:
        super().__init__()
        self.answers = threading.Event()
        """While cleared, the driver hangs in the next sample."""
        self.answers.set()
        self.samples = 0
        self.gpus = list(gpus)
        self.host = HOST

    def sample(self) -> DeviceSample:
        self.samples += 1
        self.answers.wait()
        return DeviceSample(
            time.monotonic(), self.host, self.gpus, "" if self.gpus else "no driver", "570.1"
        )

    def process_memory(self, pid: int, ledger: Ledger) -> ProcessMemory:
        if ledger.device in (EXTERNAL_SERVER, STARTED_SERVER):
            return super().process_memory(pid, ledger)
        if ledger.process < 0:
            return ProcessMemory(None, "unknown", "not scripted")
        return ProcessMemory(ledger.process, "nvml" if self.gpus else "resident")


def with_memory(gpu: GpuSample, used: int) -> GpuSample:
    return replace(gpu, memory_used=used)
