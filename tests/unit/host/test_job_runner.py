"""A job whose worker sends nothing any more."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantchat.host import job_runner, watchdog
from quantchat.host.job_runner import JobFailed
from quantchat.host.worker_process import Place, Worker, WorkerEnded
from quantchat.wire.jobs import InspectKernelsJob, Workspace
from quantchat.wire.messages import Progress
from quantchat.wire.protocol import Command, Event


class Silent:
    """Implements `host.worker_process.Worker`: one step, and nothing more until it is ended."""

    def __init__(self) -> None:
        self.pid, self.log = 2**30, Path("worker.log")
        self.closed = asyncio.Event()

    def send(self, command: Command) -> None:
        pass

    async def events(self) -> AsyncIterator[Event]:
        yield Progress("reading", 1, 2)
        await self.closed.wait()
        raise WorkerEnded(-9, self.log)

    async def close(self) -> None:
        self.closed.set()


async def test_a_worker_that_falls_silent_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(0, 4)
    monkeypatch.setattr(watchdog, "CHECK_S", 0.0)
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(job_runner, "time", SimpleNamespace(monotonic=lambda: 0.0))
    steps: list[int] = []

    async def start(place: Place) -> Worker:
        return Silent()

    with pytest.raises(JobFailed, match="the worker sent nothing for 300 s"):
        await job_runner.run_job(
            start,
            InspectKernelsJob(Workspace("", ""), []),
            lambda done, total, detail: steps.append(done),
        )
    assert steps == [1]
    assert next(seconds) > job_runner.SILENT_S
