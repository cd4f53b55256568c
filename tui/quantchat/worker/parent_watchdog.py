"""End the worker and all processes it started when its parent dies, for whatever reason.

The kernel kills the worker at once, but only the worker. Its children (a compiler, a server) stay
in its session. There a shell, of one megabyte, waits for the end of a pipe that only the parent
holds open, and then kills the session.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import Any

from quantchat.wire.process_session import WAIT_AND_KILL, kill_session

_PR_SET_PDEATHSIG = 1

SHELL = "/bin/sh"

_watchers: list[int] = []
"""Process id of the shell, once it runs."""


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when `parent` dies (prctl(2)).

    Where that is not possible, the worker notices the end of the command pipe, later if a library
    holds the interpreter lock.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        end_now()


def watch(parent_pipe: int) -> None:
    """Start the shell that reads the pipe `parent_pipe`, and close the pipe here.

    Call it while this process has no thread and no child, and no other inheritable descriptor above
    2: a pipe that the shell holds open would never seem to end.
    """
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_DUP2, parent_pipe, 0),
        (os.POSIX_SPAWN_CLOSE, parent_pipe),
        *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)),
    ]
    with contextlib.suppress(OSError):  # without a shell only the kernel ends the worker
        shell = os.posix_spawn(SHELL, [SHELL, "-c", WAIT_AND_KILL], {}, file_actions=actions)
        _watchers.append(shell)
    os.close(parent_pipe)


def end_now() -> None:
    """End this process and all processes that it started, at once: nothing needs saving."""
    if os.getsid(0) == os.getpid():
        # The shell last: if the parent is gone, the kernel may kill this process in the middle.
        kill_session(os.getpid(), spared=[os.getpid(), *_watchers])
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
