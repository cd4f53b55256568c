"""What a library does while it tells quantchat nothing: compile a kernel for minutes, say."""

from __future__ import annotations

import re
import time
from pathlib import Path

from quantchat.files import read_tail
from quantchat.wire.redaction import redacted

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
        self._end = ""

    def line(self) -> str:
        """The last line that has words, where the stage takes long and the log has grown; or ""."""
        if time.monotonic() - self._began_s < PATIENCE_S:
            return ""
        try:
            end = read_tail(self._log, _TAIL)
        except OSError:
            return ""
        if end == self._end:
            return ""
        self._end = end
        lines = re.split(r"[\r\n]", _ESCAPES.sub("", end))
        told = (" ".join(line.split()) for line in reversed(lines))
        return redacted(next(filter(None, told), ""))
