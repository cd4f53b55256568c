"""A quick start of the screen."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator


@contextlib.contextmanager
def quick_start() -> Iterator[None]:
    """To import in all that the screen needs.

    Collecting garbage, of which imports make none, took a tenth of the time until the first frame;
    the app begins with it again after that. Nor are there plugins of pydantic's to be searched for.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
