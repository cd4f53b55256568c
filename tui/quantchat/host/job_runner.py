"""Runs one job in a separate worker, from the worker's start to its end."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from quantchat.host.watchdog import watchdog
from quantchat.host.worker_process import Place, StartWorker, WorkerEnded
from quantchat.wire.codec import ProtocolError
from quantchat.wire.messages import Failed, FailureKind, Progress

if TYPE_CHECKING:
    from quantchat.wire.jobs import AnyJob, Job, Result

SILENT_S = 300.0
"""Seconds after which a worker is ended if it sends no event, not even a heartbeat."""

MORE_ROOM = "make room, or set QUANTCHAT_CACHE to a folder on another disk"


class JobFailed(Exception):
    """A job, or a stage of building a checkpoint, failed; `failure` has the reason and a hint."""

    def __init__(self, failure: Failed) -> None:
        super().__init__(failure.reason)
        self.failure = failure


async def run_job(
    start: StartWorker, job: Job[Result], report: Callable[[int, int, str], None]
) -> Result:
    """Start a worker, run `job` in it, end the worker, and return the job's result.

    `report` is called with steps done, steps in total (0: unknown) and a detail. Cancelling ends
    the worker. Raises JobFailed if the worker reports a failure, dies, or sends nothing for
    `SILENT_S`; UserError if it cannot be started.
    """
    worker = await start(Place(job.title))
    log_hint = f"look at the worker's log {worker.log}"
    result_type = job.result_type()
    last_event_s = time.monotonic()
    ending: asyncio.Future[None] | None = None

    def reset(now_s: float) -> None:
        nonlocal last_event_s
        last_event_s = now_s

    def end_if_silent(now_s: float) -> None:
        nonlocal ending
        if ending is None and now_s - last_event_s > SILENT_S:
            ending = asyncio.ensure_future(worker.close())

    try:
        async with watchdog(end_if_silent, reset):
            worker.send(cast("AnyJob", job))  # `AnyJob` lists every subclass of `Job`
            async for event in worker.events():
                last_event_s = time.monotonic()
                if isinstance(event, Progress):
                    report(event.done, event.total, event.detail)
                elif isinstance(event, Failed):
                    raise JobFailed(_with_log_hint(event, log_hint))
                elif isinstance(event, result_type):
                    return event
        raise JobFailed(Failed("worker_ended", "the worker closed its pipe", log_hint))
    except WorkerEnded as error:
        if ending is not None:
            reason = f"the worker sent nothing for {SILENT_S:.0f} s, so it was ended"
            raise JobFailed(Failed("not_responding", reason, log_hint)) from error
        killed = error.returncode == -signal.SIGKILL
        kind: FailureKind = "out_of_memory" if killed else "worker_ended"
        raise JobFailed(Failed(kind, error.reason, log_hint)) from error
    except ProtocolError as error:
        raise JobFailed(
            Failed("internal", f"the worker sent an invalid message: {error}", log_hint)
        ) from error
    finally:
        await asyncio.shield(worker.close())


def _with_log_hint(failure: Failed, log_hint: str) -> Failed:
    if "No space left on device" in failure.reason:
        return dataclasses.replace(failure, kind="no_space", hint=MORE_ROOM)
    return dataclasses.replace(
        failure, hint=f"{failure.hint}; {log_hint}" if failure.hint else log_hint
    )
