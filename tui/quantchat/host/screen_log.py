"""What nobody foresaw, written where its user can find it."""

from __future__ import annotations

import contextlib
import os
import traceback

from quantchat.wire.redaction import redacted


def log_exception(error: BaseException | None = None) -> None:
    """Write `error`, by default the one being handled, to descriptor 2: a drawn screen's log.

    Not to `sys.stderr`, which Textual takes away meanwhile, and swallows.
    """
    lines = traceback.format_exception(error) if error else [traceback.format_exc()]
    with contextlib.suppress(OSError):
        os.write(2, redacted("".join(lines)).encode("utf-8", "replace"))
