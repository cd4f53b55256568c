"""Samples the machine and the workers' memory in a thread of its own, when asked.

NVML may take seconds to open and can hang with the driver, which must hold up neither the screen
nor its end: hence a daemon thread, and not one of the event loop's, which it waits for at exit.
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

PATIENCE_S = 1.0
"""How long the loop waits for the sampler, which is in use for milliseconds but while it opens."""

MakeSampler = Callable[[], "DeviceSampler"]
"""The seam for tests: a sampler of a scripted machine."""


def real_sampler() -> DeviceSampler:
    """A sampler of this machine, imported when one is made: it is no part of the first frame."""
    from quantchat.system.sampler import DeviceSampler

    return DeviceSampler()


@dataclass(frozen=True)
class WorkerToMeasure:
    """A worker process, with its own view of its memory."""

    pid: int
    ledger: Ledger


@dataclass(frozen=True)
class Measured:
    """The machine, and each worker's memory by the label of its variant."""

    device: DeviceSample
    workers: dict[str, tuple[WorkerToMeasure, ProcessMemory]]


class DeviceWatch:
    """Asked again and again, answers with `on_measured` on the loop that made it."""

    def __init__(
        self,
        on_measured: Callable[[Measured], None],
        make_sampler: MakeSampler = real_sampler,
    ) -> None:
        self._on_measured = on_measured
        self._sampler = make_sampler()
        self._in_use = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._asked: queue.Queue[Mapping[str, WorkerToMeasure] | None] = queue.Queue()
        self._pending = False
        threading.Thread(target=self._run, name="device-watch", daemon=True).start()

    def ask(self, workers: Mapping[str, WorkerToMeasure]) -> None:
        """Measure now, unless the last question is still open: questions never pile up."""
        if not self._pending:
            self._pending = True
            self._asked.put(dict(workers))

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[DeviceSampler]:
        """The sampler, for another use on the loop's thread. Raises UserError while it is busy."""
        if not self._in_use.acquire(timeout=PATIENCE_S):
            raise UserError("the GPU driver does not answer yet", hint="try again in a moment")
        try:
            yield self._sampler
        finally:
            self._in_use.release()

    def close(self) -> None:
        """Let the thread end; what it is at is not waited for."""
        self._pending = True
        self._asked.put(None)

    def _run(self) -> None:
        while (workers := self._asked.get()) is not None:
            with self._in_use:
                measured = Measured(
                    self._sampler.sample(),
                    {
                        label: (worker, self._sampler.process_memory(worker.pid, worker.ledger))
                        for label, worker in workers.items()
                    },
                )
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._answer, measured)
        self._sampler.close()

    def _answer(self, measured: Measured) -> None:
        self._pending = False
        self._on_measured(measured)
