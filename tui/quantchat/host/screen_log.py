"""Writes unexpected exceptions to the log of the screen."""

from __future__ import annotations

import contextlib
import os
import traceback

from quantchat.wire.redaction import redacted


def log_exception(error: BaseException | None = None) -> None:
    """Write `error` (default: the exception being handled) to the log of the screen.

    While the screen runs, file descriptor 2 is that log. `sys.stderr` cannot be used: Textual
    replaces it and drops what is written to it.
    """
    lines = traceback.format_exception(error) if error else [traceback.format_exc()]
    with contextlib.suppress(OSError):
        os.write(2, redacted("".join(lines)).encode("utf-8", "replace"))
