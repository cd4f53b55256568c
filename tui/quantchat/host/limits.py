"""The CPUs and main memory that this process and its children may use.

A container may allow less than the machine has. CPUs are limited by the affinity mask (which
includes a cpuset) and by a cgroup's CPU quota, memory by a cgroup's limit. Of nested cgroups the
lowest limit counts. Supports cgroups v1 and v2: see cgroups(7) and the kernel's
admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


@dataclass(frozen=True)
class UsableMemory:
    """Main memory, in bytes, that this process may use."""

    total: int
    """The lower of the machine's memory and the cgroups' limits."""
    available: int
    """Memory that can be allocated without swapping and without exceeding a cgroup's limit."""


def usable_cpus(root: Path = _ROOT) -> int:
    """Return how many logical CPUs may compute at once, by affinity and CPU quota; at least 1.

    A quota of 2.5 CPUs gives 2: a third thread would be throttled in each period, and the others
    would wait for it. `root` is the parent of /proc and /sys; tests pass their own.
    """
    quotas = [_quota(folder) for folder in _cgroup_folders("cpu", root)]
    limits = [len(os.sched_getaffinity(0)), *(int(quota) for quota in quotas if quota is not None)]
    return max(1, min(limits))


def compute_threads() -> int:
    """Return how many threads a library may compute with: `usable_cpus`, or OMP_THREAD_LIMIT.

    If OpenMP starts fewer threads than requested, oneDNN silently leaves the other threads' part of
    a result uncomputed (torch 2.13, bfloat16). So never request more than OpenMP may start.
    """
    limit = os.environ.get("OMP_THREAD_LIMIT", "")
    return max(1, min(usable_cpus(), int(limit) if limit.isdecimal() else sys.maxsize))


class MemoryLimits:
    """Reads `UsableMemory`. Finds the cgroups only once, because a process seldom changes them."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._levels = _cgroup_folders("memory", root)

    def usable(self) -> UsableMemory:
        """Return the memory that may be used now."""
        import psutil  # imported late, because starting a worker needs only `usable_cpus`

        machine = psutil.virtual_memory()
        total, available = machine.total, machine.available
        for folder in self._levels:
            # Above memory.high a process is not killed but throttled heavily.
            limits = [
                limit
                for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
                if (limit := _read_number(folder / name)) is not None and limit < machine.total
            ]
            if limits:
                total = min(total, *limits)
                available = min(available, max(0, min(limits) - _working_set(folder)))
        return UsableMemory(total, available)


class CpuThrottling:
    """Reads how long the CPU quota of a container stopped this process and its children."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._levels = _cgroup_folders("cpu", root)

    def seconds(self) -> float:
        """Return the seconds so far, by the cgroup that was stopped longest; 0 without a quota."""
        return max(
            (_throttled_s(_read_text(folder / "cpu.stat")) for folder in self._levels), default=0
        )


def _throttled_s(stat: str) -> float:
    """Return the throttled seconds in a `cpu.stat`: microseconds in cgroups v2, ns in v1."""
    found = re.search(r"^throttled_(usec|time) (\d+)$", stat, re.MULTILINE)
    return int(found[2]) / (1e6 if found[1] == "usec" else 1e9) if found else 0.0


def _working_set(folder: Path) -> int:
    """Return the bytes that a cgroup uses, without those that the kernel can drop easily.

    These are cached files on the inactive list. When the limit is reached, the kernel drops them
    first.
    """
    used = _read_number(folder / "memory.current")
    key = "inactive_file"
    if used is None:
        used, key = _read_number(folder / "memory.usage_in_bytes") or 0, "total_inactive_file"
    cached = re.search(rf"^{key} (\d+)$", _read_text(folder / "memory.stat"), re.MULTILINE)
    return max(0, used - (int(cached[1]) if cached else 0))


def _quota(folder: Path) -> float | None:
    """Return the CPU quota of a cgroup in CPUs; None if it has none."""
    quota, _, period = _read_text(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota = _read_text(folder / "cpu.cfs_quota_us").strip()
        period = _read_text(folder / "cpu.cfs_period_us").strip()
    if not (quota.isdecimal() and period.isdecimal() and int(period)):  # "max" or -1: no quota
        return None
    return int(quota) / int(period)


def _cgroup_folders(controller: str, root: Path) -> list[Path]:
    """Return the folders of this process's cgroups with `controller`, from the innermost up."""
    paths = {}
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths[2 if number == "0" else 1, controllers] = path
    levels = []
    for version, options, mounted, point in _mounts(root):
        for (its, named), path in paths.items():
            if its != version or (version == 1 and controller not in named.split(",")):
                continue
            if version == 1 and controller not in options:
                continue
            inner = _below(path, mounted)
            place = root / point.lstrip("/")
            levels += [place / inner, *((place / above) for above in inner.parents)]
    return levels


def _mounts(root: Path) -> Iterator[tuple[int, Sequence[str], str, str]]:
    """Yield version, controllers, root and mount point of each cgroup file system (proc(5))."""
    for line in _read_text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) >= 5 and kind and kind[0] in ("cgroup", "cgroup2"):
            options = kind[-1].split(",")
            yield (1 if kind[0] == "cgroup" else 2), options, _plain(fields[3]), _plain(fields[4])


def _below(path: str, mounted: str) -> PurePosixPath:
    """Return the path of the cgroup `path` below a mount whose root is the cgroup `mounted`.

    In a container, /proc may name a path that the mount does not show: then return the mount's
    root.
    """
    try:
        inner = PurePosixPath(path).relative_to(mounted)
    except ValueError:
        return PurePosixPath()
    return PurePosixPath() if ".." in inner.parts else inner


def _plain(field: str) -> str:
    """Return `field` of a mount table with octal escapes (such as of a space) decoded."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _read_number(file: Path) -> int | None:
    text = _read_text(file).strip()
    return int(text) if text.isdecimal() else None


def _read_text(file: Path) -> str:
    """Return the content of `file`; empty if it cannot be read, e.g. because it does not exist."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""
