"""A program that owns a process session. Tests kill it: the session must end with it.

    python session_owner.py worker PYTHON      a worker under the interpreter PYTHON
    python session_owner.py watched_command COMMAND…   a command that ends with its owner

Prints the pid of the session's leader once that runs, then waits to be killed.
"""

from __future__ import annotations

import asyncio
import sys

from quantchat.host.process_group import watchdog_pipe, watched_command
from quantchat.host.worker_process import Place, start_worker


def say(pid: int) -> None:
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()


async def own_worker(python: str) -> None:
    worker = await start_worker(Place("owned", python))
    await anext(worker.events())
    say(worker.pid)
    await asyncio.Event().wait()


async def own_watched(command: list[str]) -> None:
    with watchdog_pipe() as held:
        process = await asyncio.create_subprocess_exec(
            *watched_command(command), stdin=held, start_new_session=True
        )
        say(process.pid)
        sys.exit(await process.wait())


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    asyncio.run(own_worker(rest[0]) if kind == "worker" else own_watched(rest))
