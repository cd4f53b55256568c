"""One job of a worker, from start to end, as the near side sees it."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import time
from collections.abc import Callable
from typing import Any

from quantchat.host.watchdog import watchdog
from quantchat.host.worker_process import Place, StartWorker, WorkerEnded
from quantchat.wire.codec import ProtocolError
from quantchat.wire.messages import Done, Failed, Prepare, Progress

LOST_S = 300.0
"""A worker that sends nothing for this long, no sign of life either, is ended."""

MORE_ROOM = "make room, or set QUANTCHAT_CACHE to a folder on another disk"


class JobFailed(Exception):
    """A job, or a stage of making a checkpoint, failed; `failure` has the reason and a hint."""

    def __init__(self, failure: Failed) -> None:
        super().__init__(failure.reason)
        self.failure = failure


async def run_job(
    start: StartWorker,
    job: str,
    options: dict[str, Any],
    tell: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Start a worker, let it do `job`, end it; return the job's result.

    Raises JobFailed for what the worker tells, for its death and for a silence of `LOST_S`,
    UserError where it cannot be started. Cancelling ends it.
    """
    worker = await start(Place(job.replace("_", " ")))
    look = f"look at the worker's log {worker.log}"
    heard_s = time.monotonic()
    ending: asyncio.Future[None] | None = None

    def excuse(now_s: float) -> None:
        nonlocal heard_s
        heard_s = now_s

    def end_if_silent(now_s: float) -> None:
        nonlocal ending
        if ending is None and now_s - heard_s > LOST_S:
            ending = asyncio.ensure_future(worker.close())

    try:
        async with watchdog(end_if_silent, excuse):
            worker.send(Prepare(job, options))
            async for event in worker.events():
                heard_s = time.monotonic()
                if isinstance(event, Progress):
                    tell(event.done, event.total, event.detail)
                elif isinstance(event, Failed):
                    raise JobFailed(_with_cure(event, look))
                elif isinstance(event, Done):
                    return event.result
        raise JobFailed(Failed("worker_ended", "the worker said nothing more", look))
    except WorkerEnded as error:
        if ending is not None:
            reason = f"no sign of life from the worker for {LOST_S:.0f} s: it was ended"
            raise JobFailed(Failed("not_responding", reason, look)) from error
        kind = "out_of_memory" if error.returncode == -signal.SIGKILL else "worker_ended"
        raise JobFailed(Failed(kind, error.reason, look)) from error
    except ProtocolError as error:
        raise JobFailed(
            Failed("internal", f"the worker sent what is no message: {error}", look)
        ) from error
    finally:
        await asyncio.shield(worker.close())


def _with_cure(failure: Failed, look: str) -> Failed:
    if "No space left on device" in failure.reason:
        return dataclasses.replace(failure, kind="no_space", hint=MORE_ROOM)
    return dataclasses.replace(failure, hint=f"{failure.hint}; {look}" if failure.hint else look)
