"""A session of processes that ends with this process, even if this one is killed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence

from quantchat.wire.process_session import WAIT_AND_KILL, kill_session

_SCRIPT = """
exec 3<&0
/bin/sh -c "$0" <&3 3<&- >/dev/null 2>&1 &
exec "$@" 3<&- </dev/null
"""
"""A shell that turns into the command and leaves a second one behind in its group, which waits for
the end of the pipe that is its standard input."""


def watched_command(command: Sequence[str]) -> list[str]:
    """`command`, to be started with `watchdog_pipe()` as its stdin and in a session of its own."""
    return ["/bin/sh", "-c", _SCRIPT, WAIT_AND_KILL, *command]


@contextlib.contextmanager
def watchdog_pipe() -> Iterator[int]:
    """The read end of a pipe whose write end only this process holds, until the block is left."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


def kill_all(leader: int) -> None:
    """SIGKILL the process `leader`, which began a session, and all of that."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)  # all there is to do where there is no /proc
    kill_session(leader)
