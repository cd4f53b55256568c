"""What this process, and all it starts, may use of the machine: CPUs and main memory.

The machine may have more than a container gives. CPUs are confined by the affinity mask (which
follows a cpuset) and by a cgroup's CPU quota, memory by a cgroup's limit; of nested cgroups each
one counts, so the lowest on the way up decides. Both versions of cgroups are read, see cgroups(7)
and the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


@dataclass(frozen=True)
class UsableMemory:
    """Main memory in bytes, as far as this process may use it."""

    total: int
    """The lowest limit: the machine's memory, or a cgroup's."""
    available: int
    """What can be allocated without swapping, and without being killed by a cgroup's limit."""


def usable_cpus(root: Path = _ROOT) -> int:
    """Return the logical CPUs that may compute at once: affinity and CPU quota, at least 1.

    A quota of 2.5 CPUs gives 2: a third thread would be stopped in each period, and the others
    would wait for it. `root` holds the trees /proc and /sys, for tests.
    """
    quotas = [_quota(folder) for folder in _levels("cpu", root)]
    given = [len(os.sched_getaffinity(0)), *(int(quota) for quota in quotas if quota is not None)]
    return max(1, min(given))


class MemoryLimits:
    """Reads `UsableMemory`. The cgroups are looked up once: a process seldom moves."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._levels = _levels("memory", root)

    def usable(self) -> UsableMemory:
        """Return what may be used now."""
        import psutil  # to start a worker, which `usable_cpus` is for, needs none

        machine = psutil.virtual_memory()
        total, available = machine.total, machine.available
        for folder in self._levels:
            # Above memory.high a process is not killed but stopped again and again.
            limits = [
                limit
                for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
                if (limit := _number(folder / name)) is not None and limit < machine.total
            ]
            if limits:
                total = min(total, *limits)
                available = min(available, max(0, min(limits) - _working_set(folder)))
        return UsableMemory(total, available)


def _working_set(folder: Path) -> int:
    """Bytes that a cgroup holds and cannot drop: its usage without the files that are cached.

    Cached files on the inactive list are what the kernel drops first when the limit is reached.
    """
    used = _number(folder / "memory.current")
    key = "inactive_file"
    if used is None:
        used, key = _number(folder / "memory.usage_in_bytes") or 0, "total_inactive_file"
    cached = re.search(rf"^{key} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
    return max(0, used - (int(cached[1]) if cached else 0))


def _quota(folder: Path) -> float | None:
    """The CPU quota of a cgroup, in CPUs; None where it has none."""
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota = _text(folder / "cpu.cfs_quota_us").strip()
        period = _text(folder / "cpu.cfs_period_us").strip()
    if not (quota.isdecimal() and period.isdecimal() and int(period)):  # "max", or -1
        return None
    return int(quota) / int(period)


def _levels(controller: str, root: Path) -> list[Path]:
    """The folders of this process' cgroups that `controller` may confine, from the inner one up."""
    paths = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
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
    """Version, controllers, root and mount point of each cgroup file system: mountinfo, proc(5)."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) >= 5 and kind and kind[0] in ("cgroup", "cgroup2"):
            options = kind[-1].split(",")
            yield (1 if kind[0] == "cgroup" else 2), options, _plain(fields[3]), _plain(fields[4])


def _below(path: str, mounted: str) -> PurePosixPath:
    """Where the cgroup `path` lies in a file system that shows the cgroup `mounted` as its root.

    A container may be told a path that its own mount does not show: then the mount's root it is.
    """
    try:
        inner = PurePosixPath(path).relative_to(mounted)
    except ValueError:
        return PurePosixPath()
    return PurePosixPath() if ".." in inner.parts else inner


def _plain(field: str) -> str:
    """`field` of a mount table without its octal escapes, as of a space."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None


def _text(file: Path) -> str:
    """What is in `file`; empty where it cannot be read, as most are not there."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""
