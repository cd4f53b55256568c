"""Workers for a pick: they chat as their script says, and score as far from the reference as told.

Each label has a `Script` and a distance: the mean KLD of its made-up scores, in nats. Scores are
written into the job's folder as the real job writes them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy

from fakes.scripted_worker import Script, ScriptedProvider, ScriptedWorker
from quantchat.host.worker_process import Place, Worker
from quantchat.wire.jobs import ScoreJob, ScoreResult
from quantchat.wire.messages import Failed, Finished, Hello
from quantchat.wire.protocol import Command, Event

WINDOWS = 16


@dataclass
class PickWorkers:
    """The workers of a pick, by label of the variant."""

    scripts: dict[str, Script]
    far: dict[str, float]
    """Mean KLD from the reference; the reference has 0."""
    folder: Path
    scoring_fails: dict[str, Failed] = field(default_factory=dict)
    begun: list[tuple[str, str]] = field(default_factory=list)
    """What was loaded, in order: `chat` or `score`, and the label."""
    hold: dict[str, asyncio.Event] = field(default_factory=dict)
    """A score waits here if its label is named."""
    servers: set[str] = field(default_factory=set)
    """Labels of servers, which count the tokens of an answer at its end."""

    @property
    def provider(self) -> ScriptedProvider:
        """A provider with nothing to build."""
        known = {label: self.scripts.get(label, Script()) for label in self.far}
        return ScriptedProvider(known)

    async def start(self, place: Place) -> Worker:
        """Implements `StartWorker`."""
        return _PickWorker(self, place.label)


class _PickWorker:
    """Implements `host.worker_process.Worker`: a chat, or one score."""

    def __init__(self, workers: PickWorkers, label: str) -> None:
        self._workers, self._label = workers, label
        script = workers.scripts.get(label, Script())
        path = workers.folder / f"{hashlib.sha256(label.encode()).hexdigest()[:8]}.log"
        path.write_text("", encoding="utf-8")
        self._chat = ScriptedWorker(script, path, pid=2**30)
        self._job: ScoreJob | None = None

    @property
    def pid(self) -> int:
        return self._chat.pid

    @property
    def log(self) -> Path:
        return self._chat.log

    def send(self, command: Command) -> None:
        if isinstance(command, ScoreJob):
            self._workers.begun.append(("score", self._label))
            self._job = command
            return
        if type(command).__name__ == "LoadModel":
            self._workers.begun.append(("chat", self._label))
        self._chat.send(command)

    async def events(self) -> AsyncIterator[Event]:
        if self._job is None:
            async for event in self._chat.events():
                counted = self._label in self._workers.servers and isinstance(event, Finished)
                yield _as_a_server(event) if counted else event
            return
        yield Hello(1, self.pid, "3.11")
        if self._label in self._workers.hold:
            await self._workers.hold[self._label].wait()
        if failed := self._workers.scoring_fails.get(self._label):
            yield failed
        else:
            yield _write_scores(self._job, self._label, self._workers)

    async def close(self) -> None:
        await self._chat.close()


def _as_a_server(event: Event) -> Event:
    assert isinstance(event, Finished)
    return dataclasses.replace(event, chunks=event.output_tokens, prompt_tokens=40)


def _write_scores(job: ScoreJob, label: str, workers: PickWorkers) -> ScoreResult:
    """Write what the job `score` writes; return its result."""
    far, folder = workers.far[label], Path(job.workspace.output)
    scored = WINDOWS * (job.window // 2 - 1)
    base = numpy.random.default_rng(1).gamma(1.2, 2.0, scored)
    noise = numpy.random.default_rng(int(far * 1e6) + 2)
    arrays = {"nll": base + noise.normal(far, far, scored), "top": noise.random(scored) > far}
    for name in job.against:
        for direction in ("forward", "backward"):
            arrays[f"{name}.{direction}"] = noise.gamma(4.0, far / 4, scored)
    if job.keep:
        arrays[job.keep] = base
        arrays["kept"] = numpy.full(scored, 1e-8)
    for name, values in arrays.items():
        (folder / name).write_bytes(values.astype(float).tobytes())
    script = workers.scripts.get(label, Script())
    return ScoreResult(
        model_info=script.model_info,
        tokens=WINDOWS * job.window,
        positions=scored,
        context=job.window // 2 + 1,
        ids_sha256="e" * 64,
        begin="",
        vocabulary=100,
        seconds=1.0,
        weights=script.weights,
        window=job.window,
    )
