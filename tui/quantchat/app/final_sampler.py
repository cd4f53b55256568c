"""A sampler for the end of the program, when no driver is asked any more: it might hang."""

from __future__ import annotations

import time

from quantchat.app.device_watch import Measured
from quantchat.system.host import Host
from quantchat.system.process_memory import ProcessMemory
from quantchat.system.sampler import DeviceSample, DeviceSampler
from quantchat.wire.variant import Ledger


class FinalSampler(DeviceSampler):
    """Says again what was measured last."""

    def __init__(self, measured: Measured | None) -> None:
        super().__init__()
        self._last = measured

    def sample(self) -> DeviceSample:
        """The machine as it was last seen; without its GPUs where that was never."""
        if self._last is not None:
            return self._last.device
        return DeviceSample(time.monotonic(), Host().sample(), [], no_gpu="not looked for yet")

    def process_memory(self, pid: int, ledger: Ledger) -> ProcessMemory:
        """The memory of the worker with this `pid`, as it was last seen."""
        known = self._last.workers.values() if self._last is not None else ()
        found = (memory for worker, memory in known if worker.pid == pid)
        return next(found, None) or ProcessMemory(None, "unknown", "it was not measured yet")
