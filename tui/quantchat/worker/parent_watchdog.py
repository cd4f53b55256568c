"""End the worker and all processes it started when its parent dies, for whatever reason.

The worker asks the kernel to kill it when its parent dies, but this does not end the worker's
children (a compiler, a server). So a shell in the worker's POSIX session waits until a pipe is
closed whose write end only the parent holds open. That happens when the parent dies, and the shell
then kills all processes of the session. The shell needs one megabyte of memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import Any

from quantchat.wire.process_session import WAIT_AND_KILL, kill_session

_PR_SET_PDEATHSIG = 1
"""The option of prctl(2) that sets the signal which the kernel sends when the parent dies."""

SHELL = "/bin/sh"

_watchers: list[int] = []
"""Process id of the shell; empty before it is started."""


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when `parent` dies (prctl(2)).

    Where that is not possible (not Linux), the worker ends when it notices that the command pipe is
    closed, which takes longer while a library holds the interpreter lock.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call
        end_now()


def watch(parent_pipe: int) -> None:
    """Start the shell that reads the pipe `parent_pipe`, and close the pipe here.

    Call this while the process has no other thread, no child, and no other inheritable file
    descriptor above 2. The shell would inherit such a descriptor. If it is the write end of a pipe,
    the reader of the pipe would then never see that it is closed.
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
    """End this process and all processes that it started, at once, without saving anything."""
    if os.getsid(0) == os.getpid():
        # Kill the shell last: if the kernel kills this process first, the shell kills the others.
        kill_session(os.getpid(), spared=[os.getpid(), *_watchers])
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
