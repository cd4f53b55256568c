"""Runs real workers with the demo's models, and describes the machine, for other benchmarks."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.engines.transformers import Transformers
from quantchat.engines.variant import DEMO_MODEL
from quantchat.host.worker_process import Place, Worker, WorkerEnded, start_worker
from quantchat.profile.library import find
from quantchat.profile.load import load
from quantchat.profile.model import AnyVariant
from quantchat.statistics.latency import decode_throughput
from quantchat.wire.codec import ProtocolError
from quantchat.wire.messages import (
    Failed,
    Finished,
    Generate,
    LoadModel,
    Memory,
    Ready,
    Started,
    Tokens,
)
from quantchat.wire.protocol import Event
from quantchat.wire.variant import Ledger

T = TypeVar("T")


class NotRun(Exception):
    """A worker could not do what was asked, or it ended; the text is the reason."""


class Answer(NamedTuple):
    """One answer, timed with the worker's clock."""

    text: str
    ids: list[int]
    ttft_ms: float
    tok_s: float | None
    """Decode throughput; None for fewer than two tokens."""
    cached_tokens: int
    ledger: Ledger | None
    """Memory at the end of the answer."""


def run(measuring: Coroutine[Any, Any, T]) -> T:
    """Run `measuring` and return its result; if it raises NotRun, exit with only the reason."""
    try:
        return asyncio.run(measuring)
    except NotRun as error:
        raise SystemExit(str(error)) from None


async def demo_loads() -> dict[str, LoadModel]:
    """Return the command that loads each variant of the demo, by label.

    Missing checkpoints are built first.
    """
    loads = {}
    for spec in load(find("demo")).variants:
        loads[spec.label] = await _load_of(spec)
    return loads


async def demo_gguf() -> Path:
    """Return the GGUF file from which the demo's checkpoints are made; fetch it if necessary."""
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    spec = Transformers(label="GGUF", engine="transformers", model=DEMO_MODEL, gguf_file=name)
    return Path((await CheckpointBuilder().prepare(spec, lambda progress: None)).model) / name


async def _load_of(spec: AnyVariant) -> LoadModel:
    made = await CheckpointBuilder().prepare(spec, lambda progress: None)
    return LoadModel(spec.engine, made.model, spec.options, made.revision, dtype=spec.dtype)


async def loaded(label: str, command: LoadModel) -> tuple[Worker, Ready]:
    """Start a worker that loads a model by `command`; return it when it is ready.

    Raises NotRun if the model cannot be loaded.
    """
    worker = await start_worker(Place(label))
    try:
        worker.send(command)
        async for event in _events(worker):
            if isinstance(event, Ready):
                return worker, event
            if isinstance(event, Failed):
                raise NotRun(f"{label}: {event.reason}; {event.hint}")
    except BaseException:  # Ctrl+C too
        await worker.close()
        raise
    raise AssertionError("unreachable: the events end with an exception")


async def ask(worker: Worker, request: Generate) -> Answer:
    """Send `request` and return the finished answer.

    Raises NotRun if the request fails or the worker ends.
    """
    worker.send(request)
    ids: list[int] = []
    times: list[int] = []
    received = cached = 0
    ledger = None
    async for event in _events(worker):
        if isinstance(event, Started):
            received, cached = event.received_ns, event.cached_tokens
        elif isinstance(event, Tokens):
            ids += event.ids
            times += event.times_ns
        elif isinstance(event, Memory):
            ledger = event.ledger
        elif isinstance(event, Failed):
            raise NotRun(event.reason)
        elif isinstance(event, Finished):
            ttft = (times[0] - received) / 1e6
            return Answer(event.text, ids, ttft, decode_throughput(times), cached, ledger)
    raise AssertionError("unreachable: the events end with an exception")


async def _events(worker: Worker) -> AsyncIterator[Event]:
    try:
        async for event in worker.events():
            yield event
    except WorkerEnded as error:
        print(f"{error.reason}; its log is {error.log}", flush=True)
        raise NotRun(error.reason) from None
    except ProtocolError as error:
        raise NotRun(f"the worker sent something that is not a message: {error}") from None


def circumstances(command: str) -> dict[str, Any]:
    """Return date, command, machine and load, for a result file.

    Call it before measuring, because the measurement itself adds to the load.
    """
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": f"python benchmarks/{command}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
    }
