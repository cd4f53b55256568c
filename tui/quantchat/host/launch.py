"""How a worker is started under any interpreter: the one thing both sides agree on beforehand."""

from __future__ import annotations

from pathlib import Path

BOOTSTRAP = Path(__file__).parents[1] / "worker" / "bootstrap.py"


def command_line(python: str, commands: int, events: int, life: int, parent: int) -> list[str]:
    """Arguments that start a worker: `commands`, `events`, `life` are inherited pipe descriptors.

    `parent` is the process id whose death ends the worker, and the pipe `life` with it.
    """
    return [python, str(BOOTSTRAP), *map(str, (commands, events, life, parent))]
