"""The base class of all jobs, and the folders of a job."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

Result = TypeVar("Result")


class Job(Generic[Result]):
    """A request to do one job; `Result` is the dataclass that the worker answers with."""

    title: ClassVar[str]
    """Name of the job in logs and progress messages."""

    @classmethod
    def result_type(cls) -> type[Result]:
        """Return the dataclass that answers this job."""
        (base,) = (b for b in cls.__orig_bases__ if typing.get_origin(b) is Job)  # type: ignore[attr-defined]
        return typing.cast("type[Result]", typing.get_args(base)[0])


@dataclass(frozen=True)
class Workspace:
    """The folders of a job, which exist, and its number of threads. The job writes nowhere else."""

    scratch: str
    """The job's current working directory, into which some libraries write files."""
    output: str
    """Folder for the job's output; empty at the start."""
    unfinished: str = ""
    """Folder whose files survive if the job is stopped, so that the next job can resume."""
    threads: int = 0
    """CPU threads; 0 leaves torch's own choice."""
