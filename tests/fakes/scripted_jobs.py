"""Workers that run the jobs of `quantchat.wire.jobs` from a script: no model, only result files."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantchat.host.worker_process import Place, Worker, WorkerEnded
from quantchat.wire.jobs import (
    JOBS,
    AnyJob,
    CalibrateResult,
    CalibrationUsed,
    CollectSamplesResult,
    DequantizeResult,
    JobResult,
    MergeAdapterResult,
    MergedAdapter,
    QuantizeBitsAndBytesResult,
    QuantizeGptqResult,
    ScoreResult,
    Workspace,
)
from quantchat.wire.messages import Failed, Hello, Progress
from quantchat.wire.protocol import Command, Event, decode_command, decode_event, encode
from quantchat.wire.variant import ModelInfo

WRITES = {
    "dequantize": ("model.safetensors", b"bf16" * 64),
    "calibrate": ("chats.jsonl", b'{"messages": []}\n'),
    "collect": ("chats.jsonl", b'{"text": "t"}\n'),
    "merge adapter": ("model.safetensors", b"bf16" * 64),
    "quantize gptq": ("model.safetensors", b"int4" * 16),
    "quantize bitsandbytes": ("model.safetensors", b"nf4." * 16),
    "score": ("nll", array("d", [2.0, 3.0] * 255).tobytes()),
}
"""The file that each job writes into its output folder, by the job's title."""

MODEL_INFO = ModelInfo(
    engine="transformers",
    model="model",
    architecture="Llama",
    kernel="not quantized",
    dtype="float32",
    device="cpu",
    device_name="CPU",
    attention="sdpa",
    decode="none",
    context_length=512,
    chat_template=False,
    tokenizer_hash="",
    threads=1,
)

RESULTS: dict[str, JobResult] = {
    "dequantize": DequantizeResult(parameters=1),
    "calibrate": CalibrateResult(samples=32, tokens=900),
    "collect": CollectSamplesResult(samples=32, tokens=900, found=48, length=160),
    "merge adapter": MergeAdapterResult(MergedAdapter("lora", "LoRA r8 on q_proj", "cd" * 32)),
    "quantize gptq": QuantizeGptqResult(
        layers=2,
        losses=[],
        calibration=CalibrationUsed(samples=32, tokens=5000, sha256="ab" * 32, widest=0),
        resumed=0,
    ),
    "quantize bitsandbytes": QuantizeBitsAndBytesResult(kernel="Linear4bit nf4"),
    "score": ScoreResult(
        model_info=MODEL_INFO,
        tokens=1024,
        positions=510,
        context=257,
        ids_sha256="of the tokens",
        begin="",
        vocabulary=100,
        seconds=1.0,
        weights=1,
        window=512,
    ),
}
"""What each job answers where a test says nothing else."""


@dataclass
class Jobs:
    """The behaviour of the jobs, by title. Anything can be changed while they run."""

    folder: Path
    """For the workers' logs."""
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """A job waits here, half of its file written, if it is named."""
    fails: dict[str, Failed] = field(default_factory=dict)
    dies: dict[str, int] = field(default_factory=dict)
    """Exit status with which the worker ends in place of its result."""
    results: dict[str, JobResult] = field(default_factory=dict)
    writes: dict[str, list[bytes]] = field(default_factory=dict)
    """What a job leaves in the place of what `WRITES` has, one time after the other."""
    begun: list[tuple[str, Any]] = field(default_factory=list)
    """Titles of the jobs begun, and the jobs."""
    halfway: list[str] = field(default_factory=list)
    """Jobs that have written half of their file."""
    closed: list[str] = field(default_factory=list)
    """Places whose worker was closed."""

    def names(self) -> list[str]:
        """Titles of the jobs that were started, in order."""
        return [name for name, _ in self.begun]

    async def start(self, place: Place) -> Worker:
        """Implements `StartWorker`."""
        return _JobWorker(self, place)


class _JobWorker:
    """Implements `host.worker_process.Worker` for one job."""

    def __init__(self, jobs: Jobs, place: Place) -> None:
        self._jobs = jobs
        self._place = place
        self._events: asyncio.Queue[Event | int] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._events.put_nowait(Hello(1, self.pid, "3.11"))

    @property
    def pid(self) -> int:
        return 2**30

    @property
    def log(self) -> Path:
        return self._jobs.folder / f"{self._place.label}.log"

    def send(self, command: Command) -> None:
        assert isinstance(command, JOBS)
        job: Any = decode_command(encode(command))  # as it comes out of the pipe
        self._task = asyncio.ensure_future(self._do(job))

    async def events(self) -> AsyncIterator[Event]:
        while True:
            event = await self._events.get()
            if isinstance(event, int):
                raise WorkerEnded(event, self.log)
            yield event

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._jobs.closed.append(self._place.label)

    async def _do(self, asked: AnyJob) -> None:
        jobs, job, put = self._jobs, asked.title, self._events.put_nowait
        jobs.begun.append((job, asked))
        name, body = WRITES.get(job, ("", b""))
        if bodies := jobs.writes.get(job):
            body = bodies.pop(0)
        _write(asked.workspace, name, body[: len(body) // 2])
        put(Progress(job, 1, 2, "half"))
        jobs.halfway.append(job)
        if job in jobs.gates:
            await jobs.gates[job].wait()
        if job in jobs.fails:
            put(jobs.fails[job])
        elif job in jobs.dies:
            put(jobs.dies[job])
        else:
            _write(asked.workspace, name, body)
            put(decode_event(encode({**RESULTS, **jobs.results}[job])))


def _write(workspace: Workspace, name: str, body: bytes) -> None:
    if not name:  # a job that only looks
        return
    Path(workspace.output, name).write_bytes(body)
    Path(workspace.scratch, "left").write_bytes(b"scratch")
