"""Why a variant failed, as its column tells it: what ended it before, in and after its worker."""

from __future__ import annotations

import signal

from quantchat import paths
from quantchat.errors import UserError
from quantchat.host.job_runner import JobFailed
from quantchat.host.worker_process import WorkerEnded
from quantchat.text import one_line
from quantchat.wire.messages import Failed


def failure_before_start(error: JobFailed | UserError | OSError) -> Failed:
    """What to tell of a variant that could not be made, or begun with as the profile asks."""
    if isinstance(error, JobFailed):
        return error.failure
    if isinstance(error, UserError):
        place = f"{error.where}: " if error.where else ""
        return Failed("cannot_start", f"{place}{error.what}", error.hint)
    place = f": {error.filename}" if error.filename else ""
    return Failed("internal", f"{error.strerror or error}{place}")


def ended(error: WorkerEnded, *, memory_ran_out: bool) -> Failed:
    """What to say of a worker that is gone; `memory_ran_out` is what the kernel says."""
    if error.returncode == -signal.SIGKILL and memory_ran_out:
        return Failed(
            "out_of_memory",
            f"{error.reason} as the machine ran out of memory",
            "end what else holds memory, or load one variant at a time",
        )
    return Failed("worker_ended", error.reason, "look at the worker's log, then retry")


def unforeseen(error: Exception) -> Failed:
    """What to tell of an exception that none of ours should have raised."""
    what = one_line(f"{type(error).__name__}: {error}").rstrip(" :")
    return Failed("internal", what, f"retry; the logs in {paths.logs_dir()} tell more")
