"""Detects what may disturb a measurement.

This is CPU use by other processes, suspension of the machine, stopped workers, and changes of the
CPU's frequency.
"""

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
    """CPU times in seconds since arbitrary starts: only differences of readings are meaningful."""

    at_s: float
    """Time of the monotonic clock."""
    busy_s: float
    """Busy time of the cores that this process may use, including time that the hypervisor gave
    to other virtual machines (steal)."""
    own_s: float
    """CPU time of this process and its descendants, which include the workers."""


class CpuClock:
    """Reads `CpuTime`. Each reading takes a few system calls for each of quantchat's processes."""

    def __init__(self) -> None:
        self._tree = ProcessTree(os.getpid())
        self._cores = sorted(os.sched_getaffinity(0))

    @property
    def cores(self) -> int:
        """The number of cores that this process may use; `CpuTime.busy_s` covers these."""
        return len(self._cores)

    def read(self) -> CpuTime:
        """Return the times so far."""
        self._tree.resident()  # rescans for new processes when it is due
        return CpuTime(time.monotonic(), self._busy_s(), sum(map(_used_s, self._tree.pids)))

    def _busy_s(self) -> float:
        each = psutil.cpu_times(percpu=True)
        busy = 0.0
        for core in self._cores:
            if core < len(each):
                times = each[core]
                idle = times.idle + getattr(times, "iowait", 0.0)
                guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
                busy += sum(times) - guests - idle  # proc(5): `user` includes the guests' time
        return busy

    def others(self) -> dict[int, tuple[str, float]]:
        """Return name and CPU seconds of each process that is not quantchat's, by pid.

        Reads all of /proc.
        """
        own = {os.getpid(), *self._tree.pids}
        found = {}
        for process in psutil.process_iter(["name", "cpu_times"]):
            times = process.info["cpu_times"]
            if process.pid not in own and times is not None:
                found[process.pid] = (process.info["name"] or "?", times.user + times.system)
        return found


class CpuFrequency:
    """Reads the frequency of the core that computes.

    It is the highest frequency of all cores that this process may use.
    """

    def __init__(self, root: Path = Path("/sys/devices/system/cpu")) -> None:
        files = (root / f"cpu{n}/cpufreq/scaling_cur_freq" for n in sorted(os.sched_getaffinity(0)))
        self._files = [file for file in files if file.is_file()]

    def mhz(self) -> float | None:
        """Return the frequency in MHz; None if the kernel does not show it.

        Most virtual machines do not.
        """
        found = []
        for file in self._files:
            with contextlib.suppress(OSError, ValueError):
                found.append(int(file.read_text("ascii")) / 1000)
        return max(found, default=None)


def _used_s(pid: int) -> float:
    """Return the CPU seconds of a process and of its ended children; 0 if it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def busiest(
    before: dict[int, tuple[str, float]], after: dict[int, tuple[str, float]]
) -> Counter[str]:
    """Return the CPU seconds by process name between two readings of `CpuClock.others`."""
    used: Counter[str] = Counter()
    for pid, (name, seconds) in after.items():
        known, earlier = before.get(pid, (name, 0.0))
        used[name] += seconds - earlier if known == name else seconds  # type: ignore[assignment]
    return used


def suspended_s() -> float:
    """Return the seconds that the machine was suspended since boot, e.g. with its lid closed.

    CLOCK_BOOTTIME runs during suspension, CLOCK_MONOTONIC does not (clock_gettime(2)). 0 if the
    system has no CLOCK_BOOTTIME.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    if boot is None:
        return 0.0
    return time.clock_gettime(boot) - time.clock_gettime(time.CLOCK_MONOTONIC)


def stopped_processes(pids: Iterable[int]) -> list[int]:
    """Return the pids in `pids` whose processes are stopped (by SIGSTOP or a debugger)."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
            if state.rpartition(") ")[2][:1] in ("T", "t"):  # proc(5)
                found.append(pid)
    return found
