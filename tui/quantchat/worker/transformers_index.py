"""Keep transformers' index of its models from one worker to the next.

When it is imported, transformers reads its 2,000 source files to list the names that each defines
(`create_import_structure_from_path` in `utils/import_utils.py`, transformers 5.24), and reads them
again when `transformers.models` is imported. Each time takes a quarter of a second. This module
saves the list beside compiled code, and reuses it until a source file changes.
"""

from __future__ import annotations

import functools
import hashlib
import marshal
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from quantchat.worker.compiled_code import compiled_code

_MODULE = "transformers.utils.import_utils"
_FUNCTION = "create_import_structure_from_path"


def reuse_index() -> None:
    """Make a later import of transformers use the saved index, or save it.

    Does nothing if transformers is imported already, or if there is no folder for compiled code.
    """
    kept = compiled_code()
    if kept is not None and _MODULE not in sys.modules:
        sys.meta_path.insert(0, _Finder(kept))


class _Finder:
    """Finds `_MODULE` as Python does, and changes the module when it has been executed."""

    def __init__(self, kept: Path) -> None:
        self._kept = kept

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                if scan := getattr(module, _FUNCTION, None):
                    setattr(module, _FUNCTION, _reusing(scan, self._kept))

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _reusing(scan: Callable[[Any], Any], kept: Path) -> Callable[[Any], Any]:
    """Return a function that does what `scan` does, but takes the models' index from `kept`."""

    @functools.cache
    def of_models(folder: str) -> Any:
        file = _file(folder, kept)
        try:
            return marshal.loads(file.read_bytes())  # noqa: S302 - the folder is private
        except (OSError, ValueError, EOFError, TypeError):
            index = scan(folder)
        _save(file, index)
        return index

    @functools.wraps(scan)
    def index(module_path: Any) -> Any:
        path = Path(module_path)
        folder = path.parent if path.is_file() else path
        return of_models(str(folder)) if folder.name == "models" else scan(module_path)

    return index


def _file(folder: str, kept: Path) -> Path:
    """Return the file for the index of `folder`: another one if a source file has changed."""
    known = hashlib.sha256(repr((sys.version_info, folder)).encode())
    for source in sorted(_sources(folder)):
        known.update(repr(source).encode())
    return kept / f"transformers-index-{known.hexdigest()[:16]}"


def _sources(folder: str) -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time of change of each source file below `folder`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _sources(entry.path)
            elif entry.name.endswith(".py"):
                found = entry.stat()
                yield entry.path, found.st_size, found.st_mtime_ns


def _save(file: Path, index: Any) -> None:
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        part.write_bytes(marshal.dumps(index))
        part.replace(file)
    except (
        OSError,
        ValueError,
    ):  # a full disk, or an index of other types: scanned again next time
        part.unlink(missing_ok=True)
