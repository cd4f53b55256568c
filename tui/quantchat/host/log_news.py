"""Shows the last line of a worker's log during long stages, such as compiling a kernel."""

from __future__ import annotations

import re
import time
from pathlib import Path

from quantchat.files import read_tail
from quantchat.wire.redaction import redacted

PATIENCE_S = 10.0
"""A stage shorter than this, in s, shows no log line, because most lines tell a user nothing."""

_TAIL = 4096
"""Bytes at the end of the log that are searched for its last line."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[^\[])")
"""Colours and cursor movements (ECMA-48)."""


class LogNews:
    """Reads the end of a worker's log during one stage."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._began_s = time.monotonic()
        self._end = ""

    def line(self) -> str:
        """Return the last non-empty line of the log.

        Returns "" if the stage is still short, or if the log has not changed since the last call.
        """
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
        texts = (" ".join(line.split()) for line in reversed(lines))
        return redacted(next(filter(None, texts), ""))
