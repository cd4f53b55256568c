"""A sampler for use while quantchat ends: it does not call the GPU driver, which might hang."""

from __future__ import annotations

import time

from quantchat.app.device_watch import DeviceReadings
from quantchat.system.host import Host
from quantchat.system.process_memory import ProcessMemory
from quantchat.system.sampler import DeviceSample, DeviceSampler
from quantchat.wire.variant import Ledger


class LastSampleSampler(DeviceSampler):
    """Returns the last readings again instead of taking new ones."""

    def __init__(self, measured: DeviceReadings | None) -> None:
        super().__init__()
        self._last = measured

    def sample(self) -> DeviceSample:
        """Return the last sample; if there is none, a sample of the CPU and RAM without GPUs."""
        if self._last is not None:
            return self._last.device
        return DeviceSample(time.monotonic(), Host().sample(), [], no_gpu="GPUs not sampled yet")

    def process_memory(self, pid: int, ledger: Ledger) -> ProcessMemory:
        """Return the last measured memory of the worker `pid`."""
        known = self._last.workers.values() if self._last is not None else ()
        found = (memory for worker, memory in known if worker.pid == pid)
        return next(found, None) or ProcessMemory(None, "unknown", "not measured yet")
