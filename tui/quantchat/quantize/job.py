"""One job of a worker, from start to end, as the near side sees it."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections.abc import Callable
from typing import Any

from quantchat.host.worker_process import Place, StartWorker, WorkerEnded
from quantchat.quantize.maker import MakeFailed
from quantchat.worker.protocol import Done, Failed, Prepare, Progress
from quantchat.worker.strict_json import ProtocolError

MORE_ROOM = "make room, or set QUANTCHAT_CACHE to a folder on another disk"


async def run_job(
    start: StartWorker,
    job: str,
    options: dict[str, Any],
    tell: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Start a worker, let it do `job`, end it; return the job's result.

    Raises MakeFailed for what the worker tells and for its death, UserError where it cannot be
    started. Cancelling ends it.
    """
    worker = await start(Place(job.replace("_", " ")))
    look = f"look at the worker's log {worker.log}"
    try:
        worker.send(Prepare(job, options))
        async for event in worker.events():
            if isinstance(event, Progress):
                tell(event.done, event.total, event.detail)
            elif isinstance(event, Failed):
                raise MakeFailed(_with_cure(event, look))
            elif isinstance(event, Done):
                return event.result
        raise MakeFailed(Failed("worker_ended", "the worker said nothing more", look))
    except WorkerEnded as error:
        kind = "out_of_memory" if error.returncode == -signal.SIGKILL else "worker_ended"
        raise MakeFailed(Failed(kind, error.reason, look)) from error
    except ProtocolError as error:
        raise MakeFailed(
            Failed("internal", f"the worker sent what is no message: {error}", look)
        ) from error
    finally:
        await asyncio.shield(worker.close())


def _with_cure(failure: Failed, look: str) -> Failed:
    if "No space left on device" in failure.reason:
        return dataclasses.replace(failure, kind="no_space", mend=MORE_ROOM)
    return dataclasses.replace(failure, mend=f"{failure.mend}; {look}" if failure.mend else look)
