"""If the program is killed and cannot clean up, all processes that it started end too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fakes.waiting import PATIENCE_S
from quantchat.host.worker_process import Place, start_worker

OWNER = Path(__file__).parents[1] / "fakes" / "session_owner.py"
TIMES = 8
"""Who dies first is a race: without the watcher most of these left a child behind."""

pytestmark = pytest.mark.usefixtures("own_folders")


def living(session: int) -> list[psutil.Process]:
    """The processes of `session` that run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


LEAVE_THE_GROUP = "import os; os.setpgid(0, 0); os.execvp('sleep', ['sleep', '1000'])"
"""As the compilers do that ninja starts."""


def with_children(folder: Path) -> str:
    """A Python that starts children first, as a library does that compiles."""
    script = folder / "python"
    script.write_text(
        "#!/bin/sh\nsleep 1000 </dev/null &\n"
        f'{sys.executable} -c "{LEAVE_THE_GROUP}" </dev/null &\n'
        f'exec {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def all_run(session: int, processes: int) -> bool:
    """Whether as many are there, and each that will has left the group."""
    there = living(session)
    return len(there) == processes and any(os.getpgid(p.pid) != session for p in there)


def owner(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, str(OWNER), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_worker_and_what_it_started(tmp_path: Path) -> None:
    python = with_children(tmp_path)
    for _ in range(TIMES):
        process, session = owner("worker", python)
        # The worker, its children, the watcher.
        until(lambda session=session: all_run(session, 4), "all of it runs")  # type: ignore[misc]
        process.kill()
        process.communicate()
        until(lambda session=session: not living(session), "one was left behind")  # type: ignore[misc]


def test_a_worker_that_ends_takes_its_watcher_along(tmp_path: Path) -> None:
    process, session = owner("worker", with_children(tmp_path))
    until(lambda: all_run(session, 4), "all of it runs")
    process.terminate()  # its pipes end, as at an orderly end
    process.communicate()
    until(lambda: not living(session), "one was left behind")


async def test_a_worker_that_is_closed_takes_along_what_it_started(tmp_path: Path) -> None:
    worker = await start_worker(Place("closed", with_children(tmp_path)))
    await anext(worker.events())
    until(lambda: all_run(worker.pid, 4), "all of it runs")
    await worker.close()
    until(lambda: not living(worker.pid), "one was left behind")


def test_a_command_ends_with_its_owner(tmp_path: Path) -> None:
    leaving = f'{sys.executable} -c "{LEAVE_THE_GROUP}" & sleep 1000'
    for _ in range(TIMES):
        process, session = owner("watched_command", "sh", "-c", leaving)
        until(lambda session=session: all_run(session, 4), "all of it runs")  # type: ignore[misc]
        process.kill()
        process.communicate()
        until(lambda session=session: not living(session), "one was left behind")  # type: ignore[misc]


def test_a_watched_command_has_its_own_exit_status() -> None:
    process, session = owner("watched_command", "sh", "-c", "exit 3")
    process.communicate()
    assert process.returncode == 3
    until(lambda: not living(session), "one was left behind")
