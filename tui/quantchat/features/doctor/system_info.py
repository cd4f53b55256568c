"""Collect facts about this system: folders with their sizes, the terminal, installed libraries."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quantchat import paths
from quantchat.common.versions import versions
from quantchat.engines.registry import libraries

LIBRARIES = (
    "quantchat",
    "torch",
    *(library.package for library in libraries() if library.dependency),
    "gguf",
    "textual",
    "rich",
    "pydantic",
    "nvidia-ml-py",
)
"""Libraries whose versions are shown; all are dependencies of quantchat."""

EXTRAS = {
    **{library.extra: library.package for library in libraries() if library.extra},
    "adapters": "peft",
    "eval": "lm_eval",
    "cuda-build": "nvidia-cuda-nvcc",
}
"""Extra of quantchat's package → the library that it installs."""


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs quantchat."""

    version: str
    executable: str
    system: str

    @classmethod
    def this(cls) -> Interpreter:
        """Return the interpreter that runs this code."""
        name = f"{platform.python_implementation()} {platform.python_version()}"
        return cls(name, sys.executable, platform.platform())


@dataclass(frozen=True)
class Folder:
    """One of the user's folders. Sizes are in bytes; None if the folder cannot be read."""

    name: str
    path: str
    exists: bool
    writable: bool
    """Whether files can be created in the folder, which may have to be created first."""
    size: int | None
    """Size of all files in the folder; a file with several hard links counts once."""
    free: int | None
    """Free bytes on the disk of the folder."""


@dataclass(frozen=True)
class Terminal:
    """The terminal on which the screen is drawn."""

    interactive: bool
    """Whether input and output are a terminal."""
    term: str
    colours: str
    """`true colour`, `256`, `few` or `none`, found from the environment as Rich does."""
    unicode: bool
    columns: int
    rows: int
    multiplexer: str
    """`tmux`, `screen`, or empty."""
    ssh: bool


def installed_versions() -> dict[str, str]:
    """Return the version of each library without importing it; empty if not installed."""
    return {**dict.fromkeys(LIBRARIES, ""), **versions(LIBRARIES)}


def extras() -> dict[str, str]:
    """Return name and version of each extra's library, by extra; empty if it is not installed."""
    found = versions(tuple(EXTRAS.values()))
    return {extra: f"{of} {found[of]}" if of in found else "" for extra, of in EXTRAS.items()}


def folders() -> list[Folder]:
    """Return the folders of quantchat and the cache of the Hugging Face hub."""
    named = [
        ("checkpoints", paths.cache_dir()),
        ("snapshots", paths.snapshots_dir()),
        ("logs", paths.logs_dir()),
        ("profiles", paths.config_dir()),
        ("Hugging Face hub", paths.hub_cache()),
    ]
    return [folder_state(name, path) for name, path in named]


def folder_state(name: str, path: Path) -> Folder:
    """Return the current state of `path`."""
    exists = path.is_dir()
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        free: int | None = shutil.disk_usage(nearest).free
    except OSError:
        free = None
    return Folder(
        name=name,
        path=str(path),
        exists=exists,
        writable=paths.can_be_written(path),
        size=_size(path) if exists else 0,
        free=free,
    )


def _size(folder: Path) -> int | None:
    """Return the bytes of all files, without following symbolic links; None if nothing can be read.

    The hub's cache has many symbolic links.
    """
    total, seen, refused = 0, set[tuple[int, int]](), False

    def cannot(error: OSError) -> None:
        nonlocal refused
        refused = True

    for place, _, files in os.walk(folder, onerror=cannot):
        for file in files:
            with contextlib.suppress(OSError):  # the file was removed meanwhile
                status = os.lstat(os.path.join(place, file))  # noqa: PTH118 - many files
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_size
    return None if refused and not total else total


def terminal(environ: Mapping[str, str] = os.environ) -> Terminal:
    """Return the current terminal."""
    size = shutil.get_terminal_size((0, 0))
    encoding = (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "")
    multiplexer = "tmux" if environ.get("TMUX") else "screen" if environ.get("STY") else ""
    return Terminal(
        interactive=sys.stdin.isatty() and sys.stdout.isatty(),
        term=environ.get("TERM", ""),
        colours=_colours(environ),
        unicode=encoding.startswith("utf"),
        columns=size.columns,
        rows=size.lines,
        multiplexer=multiplexer,
        ssh=bool(environ.get("SSH_CONNECTION") or environ.get("SSH_TTY")),
    )


def _colours(environ: Mapping[str, str]) -> str:
    """Return the number of colours by the conventions of Rich and Textual."""
    term = environ.get("TERM", "").lower()
    if environ.get("NO_COLOR") or term in ("", "dumb", "unknown"):
        return "none"
    if environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return "true colour"
    return "256" if term.endswith(("256color", "kitty", "ghostty", "alacritty")) else "few"
