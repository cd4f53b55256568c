"""Samples the machine and the workers' memory in a separate daemon thread.

NVML may take seconds to open, and it hangs if the driver hangs. Neither may delay the screen or the
end of the program. The thread is not one of the event loop's executor, because the loop waits for
those at exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantchat.errors import UserError
from quantchat.wire.variant import Ledger

if TYPE_CHECKING:
    from quantchat.system.process_memory import ProcessMemory
    from quantchat.system.sampler import DeviceSample, DeviceSampler

SAMPLER_WAIT_S = 1.0
"""Seconds that the event loop waits for the sampler. A sample takes milliseconds; only opening the
driver takes longer."""

MakeSampler = Callable[[], "DeviceSampler"]
"""Makes a sampler; tests pass a function whose sampler returns scripted values."""


def real_sampler() -> DeviceSampler:
    """Return a sampler of this machine, imported late so that the first frame comes sooner."""
    from quantchat.system.sampler import DeviceSampler

    return DeviceSampler()


@dataclass(frozen=True)
class WorkerToMeasure:
    """A worker process, with the memory ledger that it reported."""

    pid: int
    ledger: Ledger


@dataclass(frozen=True)
class DeviceReadings:
    """A sample of the machine, and the memory of each worker.

    `workers` maps the label of a variant to its worker and the memory of that worker.
    """

    device: DeviceSample
    workers: dict[str, tuple[WorkerToMeasure, ProcessMemory]]


class DeviceWatch:
    """Samples the machine on request, in a thread, and passes each result to `on_measured`.

    `on_measured` is called on the event loop that runs when this object is created.
    """

    def __init__(
        self,
        on_measured: Callable[[DeviceReadings], None],
        make_sampler: MakeSampler = real_sampler,
    ) -> None:
        self._on_measured = on_measured
        self._sampler = make_sampler()
        self._in_use = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._requests: queue.Queue[Mapping[str, WorkerToMeasure] | None] = queue.Queue()
        self._pending = False
        threading.Thread(target=self._run, name="device-watch", daemon=True).start()

    def request(self, workers: Mapping[str, WorkerToMeasure]) -> None:
        """Request a sample of the machine and of the memory of `workers` (label → worker).

        Does nothing while a request is pending, so that requests never pile up.
        """
        if not self._pending:
            self._pending = True
            self._requests.put(dict(workers))

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[DeviceSampler]:
        """Let the event loop's thread use the sampler within this context.

        Raises UserError if the sampler stays busy for `SAMPLER_WAIT_S`.
        """
        if not self._in_use.acquire(timeout=SAMPLER_WAIT_S):
            raise UserError("the GPU driver does not answer yet", hint="try again in a moment")
        try:
            yield self._sampler
        finally:
            self._in_use.release()

    def close(self) -> None:
        """Ask the thread to end, without waiting for it."""
        self._pending = True
        self._requests.put(None)

    def _run(self) -> None:
        while (workers := self._requests.get()) is not None:
            with self._in_use:
                measured = DeviceReadings(
                    self._sampler.sample(),
                    {
                        label: (worker, self._sampler.process_memory(worker.pid, worker.ledger))
                        for label, worker in workers.items()
                    },
                )
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._deliver, measured)
        self._sampler.close()

    def _deliver(self, measured: DeviceReadings) -> None:
        self._pending = False
        self._on_measured(measured)
