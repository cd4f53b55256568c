"""What disturbs a measurement from outside: time in which nothing ran, and what others ran."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from quantchat.system.host import ProcessTree


class CpuTime(NamedTuple):
    """Seconds, each since some moment in the past: only differences mean something."""

    at_s: float
    """By the monotonic clock."""
    busy_s: float
    """In which the cores that this process may use did anything; a virtual machine's neighbours
    (steal) are in it."""
    own_s: float
    """In which this process and those it started, its workers among them, used a core."""


class CpuClock:
    """Reads `CpuTime`. A reading costs some system calls for each process of ours."""

    def __init__(self) -> None:
        self._tree = ProcessTree(os.getpid())
        self._cores = sorted(os.sched_getaffinity(0))

    @property
    def cores(self) -> int:
        """How many cores are looked at."""
        return len(self._cores)

    def read(self) -> CpuTime:
        """The time used until now."""
        self._tree.resident()  # looks for new processes now and then
        return CpuTime(time.monotonic(), self._busy_s(), sum(map(_used_s, self._tree.pids)))

    def _busy_s(self) -> float:
        each = psutil.cpu_times(percpu=True)
        busy = 0.0
        for core in self._cores:
            if core < len(each):
                times = each[core]
                idle = times.idle + getattr(times, "iowait", 0.0)
                guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
                busy += sum(times) - guests - idle  # proc(5): a guest's time is in `user` too
        return busy

    def others(self) -> dict[int, tuple[str, float]]:
        """Name and CPU seconds of each process that is not ours, by its id. Reads all of /proc."""
        own = {os.getpid(), *self._tree.pids}
        found = {}
        for process in psutil.process_iter(["name", "cpu_times"]):
            times = process.info["cpu_times"]
            if process.pid not in own and times is not None:
                found[process.pid] = (process.info["name"] or "?", times.user + times.system)
        return found


def _used_s(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended; 0 where it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def busiest(
    before: dict[int, tuple[str, float]], after: dict[int, tuple[str, float]]
) -> Counter[str]:
    """CPU seconds that processes took between two readings of `CpuClock.others`, by their names."""
    used: Counter[str] = Counter()
    for pid, (name, seconds) in after.items():
        known, earlier = before.get(pid, (name, 0.0))
        used[name] += seconds - earlier if known == name else seconds  # type: ignore[assignment]
    return used


def suspended_s() -> float:
    """Seconds that the machine was suspended since it was started, as after its lid was closed.

    Of the two clocks one goes on meanwhile (clock_gettime(2)); 0 where the system has but one.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    if boot is None:
        return 0.0
    return time.clock_gettime(boot) - time.clock_gettime(time.CLOCK_MONOTONIC)


def stopped(pids: Iterable[int]) -> list[int]:
    """Those of `pids` that are stopped, by SIGSTOP or a debugger, and use no CPU until SIGCONT."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
            if state.rpartition(") ")[2][:1] in ("T", "t"):  # proc(5)
                found.append(pid)
    return found
