"""All processes of a session, ended together, whichever process groups they made.

ninja, which torch and GPTQModel compile kernels with, gives each compiler a group of its own: with
the worker's group alone gone, they would go on compiling for minutes.
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
"""For a shell of the session whose standard input is the read end of a pipe: it waits for the
pipe's end, to which nothing is ever written, and does what `kill_session` does."""


def kill_session(leader: int, spared: Collection[int] = ()) -> None:
    """SIGKILL each process of the session that `leader` began, but those `spared`.

    Looks again until it meets none that is new: one that is about to be killed may start another.
    Without /proc (not Linux) it does nothing.
    """
    seen = set(spared)
    while new := set(_members(leader)) - seen:
        for pid in new:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        seen |= new


def _members(leader: int) -> Iterator[int]:
    """Process ids of a session, without what is dead and not yet waited for (proc_pid_stat(5))."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which is in brackets and may hold any: state, parent, group, session.
            state, _, _, session = stat.read_text(errors="replace").rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # gone meanwhile
            continue
        if int(session) == leader and state != "Z":
            yield int(stat.parent.name)
