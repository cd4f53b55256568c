"""Where quantchat keeps things: the user's config, data, cache and log folders.

Each folder can be moved by one environment variable, for a box with a small home or for tests; the
variables are looked at first, since a container may run as a user who has no home at all.
Folders are made private to the user (0700), since conversations and logs lie in them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from quantchat.errors import UserError

_APP = "quantchat"

ENVIRONMENT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}"
"""What an environment may be called: its folder has this name."""


def _folder(variable: str, default: Callable[[str], str]) -> Path:
    """The folder that `variable` names, else `default` of our name. Raises UserError."""
    try:
        if named := os.environ.get(variable):
            return Path(named).expanduser()
        return Path(default(_APP))
    except RuntimeError as error:  # of pathlib and platformdirs: nothing to expand a ~ with
        raise UserError(
            "this user has no home directory: HOME is not set, and there is no passwd entry",
            where=variable,
            hint=f"set HOME, or {variable} to a folder that can be written",
        ) from error


def config_dir() -> Path:
    """The user's own profiles lie in `profiles/` below it. `QUANTCHAT_CONFIG` moves it."""
    return _folder("QUANTCHAT_CONFIG", platformdirs.user_config_dir)


def cache_dir() -> Path:
    """Downloads and checkpoints made here, all of which can be made again. `QUANTCHAT_CACHE`."""
    return _folder("QUANTCHAT_CACHE", platformdirs.user_cache_dir)


def snapshots_dir() -> Path:
    """Saved snapshots, by default. `QUANTCHAT_SNAPSHOTS` moves them."""
    return _folder(
        "QUANTCHAT_SNAPSHOTS", lambda app: str(Path(platformdirs.user_data_dir(app), "snapshots"))
    )


def logs_dir() -> Path:
    """One log file for each worker process. `QUANTCHAT_LOGS` moves them."""
    return _folder("QUANTCHAT_LOGS", platformdirs.user_log_dir)


def has_home() -> bool:
    """Whether this user has a home directory: what HOME names, or a passwd entry does."""
    return not os.path.expanduser("~").startswith("~")  # noqa: PTH111 - pathlib raises


def hub_home() -> Path:
    """The folder of the Hugging Face libraries, as they find it. `HF_HOME` moves it.

    Without a home they would take a folder that is called `~`: then it lies in our cache.
    """
    if named := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(named)).expanduser() if has_home() else Path(named)
    if not has_home() and not os.environ.get("XDG_CACHE_HOME"):
        return cache_dir() / "huggingface"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"


def hub_cache() -> Path:
    """Where models of the Hugging Face hub are cached. `HF_HUB_CACHE` moves it."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named).expanduser() if named else hub_home() / "hub"


def temporary_dir() -> Path:
    """A folder for files that are soon removed: the system's, else one in the cache.

    Raises UserError or OSError where there is none.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # no folder of the system's can be written, nor the current one
        return private(cache_dir() / "tmp")


def can_be_written(folder: Path) -> bool:
    """Whether files can be made in `folder`, or it can be made itself."""
    nearest = folder
    try:
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    except OSError:  # a name that is too long, a folder above it that is closed to us
        return False


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
