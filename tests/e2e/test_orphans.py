"""The program is killed, and cannot clean up: nothing that it started lives on."""

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

OWNER = Path(__file__).parents[1] / "fakes" / "owner.py"
TIMES = 8
"""Who dies first is a race: without the watcher most of these left a child behind."""

pytestmark = pytest.mark.usefixtures("own_folders")


def living(group: int) -> list[psutil.Process]:
    """The processes of `group` that run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def with_a_child(folder: Path) -> str:
    """A Python that starts a child of its own first, as a library does that compiles."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nsleep 1000 </dev/null &\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


def owner(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, str(OWNER), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_worker_and_what_it_started(tmp_path: Path) -> None:
    python = with_a_child(tmp_path)
    for _ in range(TIMES):
        process, group = owner("worker", python)
        # The worker, its child, the watcher.
        until(lambda group=group: len(living(group)) == 3, "all of it runs")  # type: ignore[misc]
        process.kill()
        process.communicate()
        until(lambda group=group: not living(group), "a process was left behind")  # type: ignore[misc]


def test_a_worker_that_ends_takes_its_watcher_along(tmp_path: Path) -> None:
    process, group = owner("worker", with_a_child(tmp_path))
    process.terminate()  # its pipes end, as at an orderly end
    process.communicate()
    until(lambda: not living(group), "a process was left behind")


def test_a_command_on_a_leash(tmp_path: Path) -> None:
    for _ in range(TIMES):
        process, group = owner("leashed", "sh", "-c", "sleep 1000 & sleep 1000")
        until(lambda group=group: len(living(group)) == 4, "all of it runs")  # type: ignore[misc]
        process.kill()
        process.communicate()
        until(lambda group=group: not living(group), "a process was left behind")  # type: ignore[misc]


def test_a_leashed_command_has_its_own_exit_status() -> None:
    process, group = owner("leashed", "sh", "-c", "exit 3")
    process.communicate()
    assert process.returncode == 3
    until(lambda: not living(group), "a process was left behind")
