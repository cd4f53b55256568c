"""End all processes of a POSIX session, whatever process groups they are in.

torch and GPTQModel compile kernels with ninja, which gives each compiler a process group of its
own: killing only the worker's group would leave compilers running for minutes.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

WAIT_AND_KILL = """
read -r _
read -r line </proc/$$/stat
set -- ${line##*) }
session=$4 seen=" $$ "
while :; do
    new=
    for stat in /proc/[0-9]*/stat; do
        { read -r line <"$stat"; } 2>/dev/null || continue
        set -- ${line##*) }
        [ "$4" = "$session" ] && [ "$1" != Z ] || continue
        pid=${stat#/proc/} pid=${pid%/stat}
        case $seen in *" $pid "*) continue ;; esac
        kill -KILL "$pid"
        seen="$seen$pid " new=1
    done
    [ "$new" ] || break
done
kill -KILL 0
"""
"""Script for a shell in the session. Its standard input is the read end of a pipe to which nothing
is written. It waits until the pipe is closed, then does the same as `kill_session`, and last kills
its own process group."""


def kill_session(leader: int, spared: Collection[int] = ()) -> None:
    """Send SIGKILL to each process of the session that `leader` began, except those in `spared`.

    Repeats until it finds no new process: a process may start another before it is killed. Does
    nothing if there is no /proc (not Linux).
    """
    seen = set(spared)
    while new := set(_members(leader)) - seen:
        for pid in new:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        seen |= new


def _members(leader: int) -> Iterator[int]:
    """Yield the process ids of a session, without zombies (proc_pid_stat(5))."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name is in parentheses and may contain any characters. After it come: state,
            # parent, process group, session.
            state, _, _, session = stat.read_text(errors="replace").rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        if int(session) == leader and state != "Z":
            yield int(stat.parent.name)
