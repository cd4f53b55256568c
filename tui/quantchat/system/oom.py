"""Memory that ran out: what the kernel tells of it."""

from __future__ import annotations

from pathlib import Path


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes the kernel has killed for want of memory; None where it does not tell.

    The whole machine's, since it began (proc(5), `oom_kill`): what matters is whether it grew.
    """
    try:
        lines = vmstat.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    counts = (line.split()[1] for line in lines if line.startswith("oom_kill "))
    return next((int(count) for count in counts if count.isdigit()), None)
