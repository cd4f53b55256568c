"""Explains why a variant failed: before its worker started, or because its worker ended."""

from __future__ import annotations

import signal

from quantchat import paths
from quantchat.errors import UserError
from quantchat.host.job_runner import JobFailed
from quantchat.host.worker_process import WorkerEnded
from quantchat.text import one_line
from quantchat.wire.messages import Failed


def failure_before_start(error: JobFailed | UserError | OSError) -> Failed:
    """Return the failure of a variant that could not be prepared or started."""
    if isinstance(error, JobFailed):
        return error.failure
    if isinstance(error, UserError):
        place = f"{error.where}: " if error.where else ""
        return Failed("cannot_start", f"{place}{error.what}", error.hint)
    place = f": {error.filename}" if error.filename else ""
    return Failed("internal", f"{error.strerror or error}{place}")


def worker_ended(error: WorkerEnded, *, memory_ran_out: bool) -> Failed:
    """Return the failure of a worker that ended; `memory_ran_out`: the kernel's OOM killer ran."""
    if error.returncode == -signal.SIGKILL and memory_ran_out:
        return Failed(
            "out_of_memory",
            f"{error.reason} because the machine ran out of memory",
            "end other programs that use memory, or load one variant at a time",
        )
    return Failed("worker_ended", error.reason, "see the worker's log, then try again")


def unexpected_error(error: Exception) -> Failed:
    """Return the failure for an unexpected exception."""
    what = one_line(f"{type(error).__name__}: {error}").rstrip(" :")
    return Failed("internal", what, f"try again; see the logs in {paths.logs_dir()}")
