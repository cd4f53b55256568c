"""Creates log files: one for each worker, and one for each run of pip."""

from __future__ import annotations

import errno
import os
import re
import time
from pathlib import Path

from quantchat import paths


def new_log(label: str) -> Path:
    """Create a log file, private to the user, in the log folder; return its path.

    On a full disk, return the null device: a measurement does not need a log. Raises OSError.
    """
    try:
        return _new_file(label, paths.private(paths.logs_dir()))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return Path(os.devnull)


def _new_file(label: str, folder: Path) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:40] or "worker"
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}-{os.getpid()}"
    log, number = folder / f"{stem}.log", 1
    while True:  # the name may exist: a worker may be restarted within the same second
        try:
            log.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            number += 1
            log = folder / f"{stem}-{number}.log"
        else:
            return log
