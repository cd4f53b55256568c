"""What a library does while it tells quantchat nothing: compile a kernel for minutes, say."""

from __future__ import annotations

import re
import time
from pathlib import Path

from quantchat.worker.redaction import redacted

PATIENCE_S = 10.0
"""A stage shorter than this needs no explanation, and libraries print much that is none."""

_TAIL = 4096
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[^\[])")
"""Colours and cursor movements (ECMA-48)."""


class LogNews:
    """The end of a worker's log during one stage."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._began_s = time.monotonic()
        self._size = 0

    def line(self) -> str:
        """The last line that has words, where the stage takes long and the log has grown; or ""."""
        if time.monotonic() - self._began_s < PATIENCE_S:
            return ""
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - _TAIL))
                end = file.read()
        except OSError:
            return ""
        grown, self._size = size > self._size, size
        lines = re.split(r"[\r\n]", _ESCAPES.sub("", end.decode("utf-8", "replace")))
        told = (" ".join(line.split()) for line in reversed(lines))
        return redacted(next((line for line in told if line), "")) if grown else ""
