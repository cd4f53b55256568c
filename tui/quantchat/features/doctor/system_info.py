"""Where quantchat runs: its folders with their sizes, the terminal, the libraries installed."""

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
"""Whose versions are told; each is a dependency."""

EXTRAS = {
    "servers": "openai",
    "adapters": "peft",
    "eval": "lm_eval",
    "cuda-build": "nvidia-cuda-nvcc",
}
"""The library that each extra of the package brings."""


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs quantchat."""

    version: str
    executable: str
    system: str

    @classmethod
    def this(cls) -> Interpreter:
        """The one that runs."""
        name = f"{platform.python_implementation()} {platform.python_version()}"
        return cls(name, sys.executable, platform.platform())


@dataclass(frozen=True)
class Folder:
    """One of the user's folders. Sizes in bytes; None where it cannot be looked at."""

    name: str
    path: str
    exists: bool
    writable: bool
    """Whether files can be made in it, or it can be made itself."""
    size: int | None
    """Of all files in it; a file with several names counts once."""
    free: int | None
    """On its disk."""


@dataclass(frozen=True)
class Terminal:
    """What the screen will be drawn on."""

    interactive: bool
    """Input and output are a terminal."""
    term: str
    colours: str
    """`true colour`, `256`, `few` or `none`: by the environment, as Rich goes by it."""
    unicode: bool
    columns: int
    rows: int
    multiplexer: str
    """`tmux`, `screen`, or empty."""
    ssh: bool


def installed() -> dict[str, str]:
    """Version of each library, without importing it; empty where it is not installed."""
    return {**dict.fromkeys(LIBRARIES, ""), **versions(LIBRARIES)}


def extras() -> dict[str, str]:
    """Name and version of what each extra brings, by the extra; empty where it is not installed."""
    found = versions(tuple(EXTRAS.values()))
    return {extra: f"{of} {found[of]}" if of in found else "" for extra, of in EXTRAS.items()}


def folders() -> list[Folder]:
    """The folders of quantchat, and the cache of the Hugging Face hub."""
    named = [
        ("checkpoints", paths.cache_dir()),
        ("snapshots", paths.snapshots_dir()),
        ("logs", paths.logs_dir()),
        ("profiles", paths.config_dir()),
        ("Hugging Face hub", paths.hub_cache()),
    ]
    return [look_at(name, path) for name, path in named]


def look_at(name: str, path: Path) -> Folder:
    """`path` as it is now."""
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
    """Bytes on the disk. The hub's cache links to its files: links are not followed."""
    total, seen, refused = 0, set[tuple[int, int]](), False

    def cannot(error: OSError) -> None:
        nonlocal refused
        refused = True

    for place, _, files in os.walk(folder, onerror=cannot):
        for file in files:
            with contextlib.suppress(OSError):  # it has gone
                about = os.lstat(os.path.join(place, file))  # noqa: PTH118 - many files
                if (about.st_dev, about.st_ino) not in seen:
                    seen.add((about.st_dev, about.st_ino))
                    total += about.st_size
    return None if refused and not total else total


def terminal(environ: Mapping[str, str] = os.environ) -> Terminal:
    """The terminal at hand."""
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
    """How many colours, by the conventions Rich and Textual go by."""
    term = environ.get("TERM", "").lower()
    if environ.get("NO_COLOR") or term in ("", "dumb", "unknown"):
        return "none"
    if environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return "true colour"
    return "256" if term.endswith(("256color", "kitty", "ghostty", "alacritty")) else "few"
