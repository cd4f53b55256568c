"""The machine without its GPUs: processor, main memory, resident memory of a worker."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from quantchat.host.limits import MemoryLimits, usable_cpus

RESCAN_S = 5.0
"""Seconds for which a worker's list of descendants is cached: a scan reads all of /proc."""
RESCAN_SHARE = 1 / 400
"""Largest share of a core's time for these scans. If a scan takes long because there are many
processes, the list is cached for longer."""


@dataclass(frozen=True)
class HostSample:
    """Processor and main memory at one moment."""

    cpu: str
    """Model name of the processor."""
    cores: int
    """Logical cores that this process may use at once (see `host/limits.py`)."""
    cpu_percent: float | None
    """Busy share of all logical cores since the previous sample, in percent; None in the first
    sample."""
    ram_used: int
    """Bytes in use: `ram_total` minus what can be allocated without swapping."""
    ram_total: int
    """Bytes that this process may use: the machine's memory, or a cgroup's lower limit."""


class Host:
    """Reads `HostSample`s."""

    def __init__(self) -> None:
        self._cpu = cpu_name()
        self._cores = usable_cpus()
        self._memory = MemoryLimits()
        self._last: tuple[float, float] | None = None

    def sample(self) -> HostSample:
        """Return a sample.

        The busy share is computed here, because `psutil.cpu_percent` measures from the previous
        call in the same thread.
        """
        now = _cpu_seconds()
        busy_percent = None
        if self._last is not None and now[1] > self._last[1]:
            busy, total = now[0] - self._last[0], now[1] - self._last[1]
            busy_percent = min(100.0, max(0.0, 100 * busy / total))
        self._last = now
        memory = self._memory.usable()
        return HostSample(
            cpu=self._cpu,
            cores=self._cores,
            cpu_percent=busy_percent,
            ram_used=memory.total - memory.available,
            ram_total=memory.total,
        )


def _cpu_seconds() -> tuple[float, float]:
    """Return the busy seconds and all seconds of all cores since boot."""
    times = psutil.cpu_times()
    # proc(5): `user` already includes the time of guests.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the model name of the processor; the architecture if the kernel does not report it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown processor"


def cpu_has(flag: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor has the feature `flag` of Linux; False if that is not known."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = (line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    return flag in next(flags, [])


class ProcessTree:
    """Resident memory of a process and all its descendants.

    Pages that several processes share are counted once for each of them. This matters little: a
    worker seldom has children while it decodes.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._rescan_at = float("-inf")
        self._processes: list[psutil.Process] = []

    def resident(self) -> int | None:
        """Return the resident memory in bytes; None if the process has ended."""
        try:
            if time.monotonic() >= self._rescan_at:
                self._scan()
            total: int = self._processes[0].memory_info().rss
        except psutil.Error:
            return None
        for child in self._processes[1:]:
            try:
                total += child.memory_info().rss
            except psutil.Error:  # it has ended; the next scan removes it
                continue
        return total or None

    @property
    def pids(self) -> list[int]:
        """The pids as of the last scan."""
        return [process.pid for process in self._processes]

    def _scan(self) -> None:
        began = time.thread_time()
        parent = psutil.Process(self._pid)
        self._processes = [parent, *parent.children(recursive=True)]
        cost_s = time.thread_time() - began
        self._rescan_at = time.monotonic() + max(RESCAN_S, cost_s / RESCAN_SHARE)
