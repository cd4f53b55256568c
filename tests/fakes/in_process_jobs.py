"""Workers that run real jobs in a thread of this process, without a start and new imports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from quantchat.host.worker_process import Place, Worker
from quantchat.wire.jobs import JOBS, AnyJob
from quantchat.wire.messages import Hello, Progress
from quantchat.wire.protocol import Command, Event, decode_command, decode_event, encode
from quantchat.worker.failures import describe
from quantchat.worker.jobs import dispatch


class InProcessJobs:
    """Implements `StartWorker`. `on_progress` is called with each step, and may raise or wait."""

    def __init__(
        self, on_progress: Callable[[str, Progress], None] = lambda label, step: None
    ) -> None:
        self.on_progress = on_progress
        self.places: list[Place] = []
        self.done: list[Any] = []
        """The jobs, in order."""

    async def start(self, place: Place) -> Worker:
        self.places.append(place)
        return _WorkerHere(self, place)


class _WorkerHere:
    """Implements `host.worker_process.Worker` for one job."""

    def __init__(self, jobs: InProcessJobs, place: Place) -> None:
        self._jobs, self._place = jobs, place
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._events.put_nowait(Hello(1, self.pid, "3.11"))

    @property
    def pid(self) -> int:
        return 2**30

    @property
    def log(self) -> Path:
        return Path("worker.log")

    def send(self, command: Command) -> None:
        assert isinstance(command, JOBS)
        job: Any = decode_command(encode(command))  # as it comes out of the pipe
        self._jobs.done.append(job)
        self._task = asyncio.ensure_future(self._do(job))

    async def events(self) -> AsyncIterator[Event]:
        while True:
            event = await self._events.get()
            if isinstance(event, Progress):
                self._jobs.on_progress(self._place.label, event)
            yield event

    async def close(self) -> None:
        if self._task is not None:  # a thread cannot be ended: it is short
            await asyncio.gather(self._task, return_exceptions=True)

    async def _do(self, job: AnyJob) -> None:
        loop = asyncio.get_running_loop()

        def put(event: Event) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        def run() -> None:
            try:
                result = dispatch.run(job, lambda *step: put(Progress(job.title, *step)))
            except Exception as error:  # noqa: BLE001 - told as a worker tells it
                put(describe(error))
            else:
                put(decode_event(encode(result)))

        await asyncio.to_thread(run)
