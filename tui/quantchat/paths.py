"""Where quantchat keeps things: the user's config, data, cache and log folders.

Each folder can be moved by one environment variable, for a box with a small home or for tests.
Folders are made private to the user (0700), since conversations and logs lie in them.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_APP = "quantchat"

ENVIRONMENT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}"
"""What an environment may be called: its folder has this name."""


def _folder(variable: str, default: str) -> Path:
    named = os.environ.get(variable)
    return Path(named).expanduser() if named else Path(default)


def config_dir() -> Path:
    """The user's own profiles lie in `profiles/` below it. `QUANTCHAT_CONFIG` moves it."""
    return _folder("QUANTCHAT_CONFIG", platformdirs.user_config_dir(_APP))


def cache_dir() -> Path:
    """Downloads and checkpoints made here, all of which can be made again. `QUANTCHAT_CACHE`."""
    return _folder("QUANTCHAT_CACHE", platformdirs.user_cache_dir(_APP))


def snapshots_dir() -> Path:
    """Saved snapshots, by default. `QUANTCHAT_SNAPSHOTS` moves them."""
    return _folder("QUANTCHAT_SNAPSHOTS", str(Path(platformdirs.user_data_dir(_APP), "snapshots")))


def logs_dir() -> Path:
    """One log file for each worker process. `QUANTCHAT_LOGS` moves them."""
    return _folder("QUANTCHAT_LOGS", platformdirs.user_log_dir(_APP))


def private(folder: Path) -> Path:
    """Make `folder` (and what is missing above it), readable by the user alone; return it.

    A folder that exists keeps its mode: it may be one the user shares on purpose.
    Raises OSError where it cannot be made.
    """
    missing, place = list[Path](), folder
    while not place.is_dir() and place != place.parent:
        missing.append(place)
        place = place.parent
    for place in reversed(missing):
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:
            if not place.is_dir():  # else another process was quicker
                raise
    return folder
