"""Inspect the machine, the folders, the terminal and, in a worker process, the libraries."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from quantchat.engines.registry import engines
from quantchat.errors import UserError
from quantchat.features.doctor.system_info import (
    Folder,
    Interpreter,
    Terminal,
    extras,
    folders,
    installed_versions,
    terminal,
)
from quantchat.host.job_runner import JobFailed, run_job
from quantchat.host.worker_process import Place, StartWorker, Worker, start_worker
from quantchat.paths import temporary_dir
from quantchat.system.sampler import DeviceSample, DeviceSampler
from quantchat.wire.jobs import InspectKernelsJob, InspectKernelsResult, Loader, Workspace

PATIENCE_S = 180.0
"""Longest time in s that a worker may take to import and try the libraries. It is long because a
disk is slow as long as the files are not in the page cache."""


@dataclass(frozen=True)
class Diagnosis:
    """The result of an inspection."""

    interpreter: Interpreter
    libraries: dict[str, str]
    """Version of each library by name; empty if it is not installed."""
    device: DeviceSample
    folders: list[Folder]
    terminal: Terminal
    worker: InspectKernelsResult | None = None
    """What a worker found out about its libraries; None if no worker could inspect them."""
    failure: str = ""
    """Why no worker could inspect the libraries; empty if one did."""
    extras: dict[str, str] = field(default_factory=dict)
    """Extra of quantchat's package → name and version of its library; empty if not installed."""

    def as_json(self) -> dict[str, object]:
        """Return the diagnosis as JSON values, with the keys that `doctor --json` prints."""
        body = asdict(self)
        if self.worker is None:
            return {**body, "worker": {}}
        tools = body["worker"]["tools"]
        tools["c++"] = tools.pop("cxx")
        return body


async def examine(
    python: str | None = None,
    *,
    sampler: DeviceSampler | None = None,
    start: StartWorker = start_worker,
    report: Callable[[str], None] = lambda step: None,
) -> Diagnosis:
    """Inspect everything; with `python`, try the libraries of that interpreter.

    `report` is called with a line of text at each step of the worker.
    """
    sampler = sampler or DeviceSampler()
    try:
        device = sampler.sample()
    finally:
        sampler.close()
    worker, failure = await _inspect(python, start, report)
    return Diagnosis(
        Interpreter.this(),
        installed_versions(),
        device,
        folders(),
        terminal(),
        worker,
        failure,
        extras(),
    )


def loaders() -> list[Loader]:
    """Return the loader, with its libraries, of each engine that declares libraries."""
    return [
        Loader(engine.loader, list(engine.libraries))
        for engine in engines().values()
        if engine.libraries
    ]


async def _inspect(
    python: str | None, start: StartWorker, report: Callable[[str], None]
) -> tuple[InspectKernelsResult | None, str]:
    """Return what a worker finds out about its libraries, or why it could not inspect them."""

    async def start_there(place: Place) -> Worker:
        return await start(Place(place.label, python))

    with tempfile.TemporaryDirectory(prefix="quantchat-", dir=temporary_dir()) as scratch:
        job = run_job(
            start_there,
            InspectKernelsJob(Workspace(scratch, scratch), loaders()),
            lambda done, total, detail: report(detail),
        )
        try:
            return await asyncio.wait_for(job, PATIENCE_S), ""
        except JobFailed as error:
            cure = f" ({error.failure.hint})" if error.failure.hint else ""
            return None, f"{error.failure.reason}{cure}"
        except asyncio.TimeoutError:  # before OSError, its base class since Python 3.11
            return None, f"the worker did not answer within {PATIENCE_S:.0f} s"
        except (UserError, OSError) as error:
            return None, str(error)
