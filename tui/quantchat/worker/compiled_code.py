"""The folder in which a worker keeps compiled code for the next worker."""

from __future__ import annotations

import os
from pathlib import Path


def compiled_code() -> Path | None:
    """Return the folder that the worker shares with torch's compiler; None outside a worker.

    The main process names it in a variable of torch, and creates it, private to the user.
    """
    named = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    return Path(named) if named else None
