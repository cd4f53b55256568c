"""Reads how often the kernel killed a process because memory ran out."""

from __future__ import annotations

from pathlib import Path


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """Return how many processes the kernel's OOM killer has killed since boot; None if unknown.

    The count is for the whole machine (`oom_kill` in proc(5)): compare two readings.
    """
    try:
        lines = vmstat.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    counts = (line.split()[1] for line in lines if line.startswith("oom_kill "))
    return next((int(count) for count in counts if count.isdigit()), None)
