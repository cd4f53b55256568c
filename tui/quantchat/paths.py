"""The user's folders for config, data, cache and logs.

An environment variable can move each folder, for a machine with a small home or for tests. The
variables are read first, because a container may run as a user without a home directory. Folders
are created private to the user (0700), because they hold conversations and logs.
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
"""Pattern of the names of the Python environments that `quantchat env` makes. An environment's
folder has the same name."""


def _folder(variable: str, default: Callable[[str], str]) -> Path:
    """Return the folder that `variable` names, else `default("quantchat")`. Raises UserError."""
    try:
        if named := os.environ.get(variable):
            return Path(named).expanduser()
        return Path(default(_APP))
    except RuntimeError as error:  # from pathlib and platformdirs: `~` cannot be expanded
        raise UserError(
            "this user has no home directory: HOME is not set, and there is no passwd entry",
            where=variable,
            hint=f"set HOME, or set {variable} to a writable folder",
        ) from error


def config_dir() -> Path:
    """Return the folder with preferences and `profiles/`. `QUANTCHAT_CONFIG` moves it."""
    return _folder("QUANTCHAT_CONFIG", platformdirs.user_config_dir)


def preferences_file() -> Path:
    """Return the file with the user's preferences, which need not exist."""
    return config_dir() / "preferences.toml"


def cache_dir() -> Path:
    """Return the folder for downloads and checkpoints. `QUANTCHAT_CACHE` moves it."""
    return _folder("QUANTCHAT_CACHE", platformdirs.user_cache_dir)


def snapshots_dir() -> Path:
    """Return the default folder for snapshots. `QUANTCHAT_SNAPSHOTS` moves it."""
    return _folder(
        "QUANTCHAT_SNAPSHOTS", lambda app: str(Path(platformdirs.user_data_dir(app), "snapshots"))
    )


def logs_dir() -> Path:
    """Return the folder with one log file for each worker. `QUANTCHAT_LOGS` moves it."""
    return _folder("QUANTCHAT_LOGS", platformdirs.user_log_dir)


def has_home() -> bool:
    """Return whether this user has a home directory, from HOME or a passwd entry."""
    return not os.path.expanduser("~").startswith("~")  # noqa: PTH111 - pathlib raises


def hub_home() -> Path:
    """Return the folder of the Hugging Face libraries. `HF_HOME` moves it.

    For a user without a home directory it is a folder in quantchat's cache, because the libraries
    would create a folder named `~`.
    """
    if named := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(named)).expanduser() if has_home() else Path(named)
    if not has_home() and not os.environ.get("XDG_CACHE_HOME"):
        return cache_dir() / "huggingface"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"


def hub_cache() -> Path:
    """Return the cache folder for models of the Hugging Face hub. `HF_HUB_CACHE` moves it."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named).expanduser() if named else hub_home() / "hub"


def temporary_dir() -> Path:
    """Return the system's folder for temporary files; if none is writable, one in the cache.

    Raises UserError or OSError if the folder in the cache cannot be created either.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # neither the system's folders nor the current one are writable
        return private(cache_dir() / "tmp")


def can_be_written(folder: Path) -> bool:
    """Return whether files can be created in `folder`, which may have to be created first."""
    nearest = folder
    try:
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    except OSError:  # the name is too long, or a parent folder is not accessible
        return False


def private(folder: Path) -> Path:
    """Create `folder` and its missing parents, accessible only to the user; return `folder`.

    An existing folder keeps its mode, because the user may share it on purpose. Raises OSError.
    """
    missing, place = list[Path](), folder
    while not place.is_dir() and place != place.parent:
        missing.append(place)
        place = place.parent
    for place in reversed(missing):
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:
            if not place.is_dir():  # otherwise another process has just created it
                raise
    return folder
