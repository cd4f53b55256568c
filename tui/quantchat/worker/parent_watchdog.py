"""A worker ends when its parent is gone, however the parent went, and with it all it started.

The kernel kills the worker at once, and the worker alone. What it started (a compiler, say) lives
in its session; a shell of a megabyte lives there too, and does nothing but wait for the end of a
pipe that only the parent holds open, to kill the session.
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
"""Process id of the shell, once there is one."""


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when `parent` dies (prctl(2)).

    Where it will not, the end of the command pipe has to do, which a library that holds the
    interpreter lock can delay.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        end_now()


def watch(parent_pipe: int) -> None:
    """Start the watcher at the pipe `parent_pipe`, and let go of it here.

    To be called while this process has no thread and no child, and while no descriptor above 2 but
    `parent_pipe` would be inherited: what the watcher held open would never seem to end.
    """
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_DUP2, parent_pipe, 0),
        (os.POSIX_SPAWN_CLOSE, parent_pipe),
        *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)),
    ]
    with contextlib.suppress(OSError):  # no shell: the kernel's way has to do
        shell = os.posix_spawn(SHELL, [SHELL, "-c", WAIT_AND_KILL], {}, file_actions=actions)
        _watchers.append(shell)
    os.close(parent_pipe)


def end_now() -> None:
    """End this process and all it started, at once: nothing here needs saving."""
    if os.getsid(0) == os.getpid():
        # The watcher last: where the parent is gone, the kernel may kill this process amid it all.
        kill_session(os.getpid(), spared=[os.getpid(), *_watchers])
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
