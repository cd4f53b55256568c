"""Avoids full garbage collections while quantchat starts and while answers stream.

A full collection looks at every object of modules, widgets and answers, and no key is handled
meanwhile. By default Python runs several full collections while two answers stream; with this
module it runs hardly any. Without collections during imports, the first frame comes sooner.
`benchmarks/gc_tuning.py` measures both effects, and docs/reference/screen.md has the figures.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

FULL_AFTER = 1000
"""Number of collections of younger objects after which a full one runs. Full collections are rare
but not off, because an answer may take hours. Python's default is 10."""

_started = False


@contextlib.contextmanager
def no_collection_while_importing() -> Iterator[None]:
    """Turn the collector off until `first_frame_drawn` is called or this context ends.

    Also keep pydantic from searching for plugins, which would take time.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def first_frame_drawn() -> None:
    """Turn the collector on again.

    From now on it skips the objects that exist now, until `collect_while_idle` is called.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def start() -> None:
    """Make full collections rare in the whole process.

    Only quantchat's own program calls this, not a program that imports quantchat.
    """
    global _started
    _started = True
    youngest, middle, _ = gc.get_threshold()
    gc.set_threshold(youngest, middle, FULL_AFTER)


def collect_while_idle() -> None:
    """Run a full collection now; later collections skip the objects that remain.

    The next call of this function looks at all objects again. Does nothing before `start`.
    """
    if _started:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
