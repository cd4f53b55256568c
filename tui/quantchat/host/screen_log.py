"""What nobody foresaw, written where its user can find it."""

from __future__ import annotations

import contextlib
import os
import traceback

from quantchat.worker.redaction import redacted


def log_exception() -> None:
    """Write the exception being handled to descriptor 2: while a screen is drawn, its log.

    Not to `sys.stderr`, which Textual takes away meanwhile, and swallows.
    """
    with contextlib.suppress(OSError):
        os.write(2, redacted(traceback.format_exc()).encode("utf-8", "replace"))
