"""Starts commands whose whole process session ends with this process, even if it is killed."""

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
"""A shell script that runs the command with `exec`, after starting a second shell in its process
group. The second shell waits for the end of the pipe on its standard input, then kills the
session."""


def watched_command(command: Sequence[str]) -> list[str]:
    """Return `command` wrapped for a start in a new session with `watchdog_pipe()` as its stdin."""
    return ["/bin/sh", "-c", _SCRIPT, WAIT_AND_KILL, *command]


@contextlib.contextmanager
def watchdog_pipe() -> Iterator[int]:
    """Yield the read end of a pipe whose write end only this process has open."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


def kill_all(leader: int) -> None:
    """SIGKILL the session leader `leader` and all processes of its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)  # without /proc, only the process group can be killed
    kill_session(leader)
