"""The cache of built checkpoints: a build leaves an artifact's folder complete or absent.

An artifact is the output of one build: a checkpoint, or something that a checkpoint is made from,
such as calibration chats. This module does not know what an artifact contains. An artifact is built
in a temporary folder, described by its `made.json`, and renamed into place. A lock for each name
stops two processes from building the same artifact: the second process waits and then finds the
artifact.

    checkpoints/<name>/              the artifact, with its made.json
    checkpoints/.parts/<name>.*/     a running build, or the leftovers of a process that died
    checkpoints/.unfinished/<name>/  files from which a later build can resume
    checkpoints/.locks/<name>.lock
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from quantchat import paths
from quantchat.files import sha256
from quantchat.wire.codec import from_json

MADE_FILE = "made.json"
"""The file that describes an artifact."""

SCHEMA = 1
"""Version of that file's format."""

LOCK_POLL_S = 0.2
"""Seconds between two attempts to take a lock that another process holds."""


@dataclass(frozen=True)
class BuiltFile:
    """Size and hash of a file of an artifact."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class BuiltCheckpoint:
    """The content of an artifact's `made.json`."""

    schema: int
    inputs: dict[str, Any]
    """Inputs of the build; the hash in the artifact's name is computed from them."""
    result: dict[str, Any]
    """What the build returned."""
    versions: dict[str, str]
    """Versions of the libraries, by name."""
    files: dict[str, BuiltFile]
    """The files, by their path inside the artifact."""
    seconds: float
    """Duration of the build."""
    finished: str
    """Time of completion, as ISO 8601 in UTC."""


@dataclass(frozen=True)
class BuildFolders:
    """The folders of one build; the content of `output` at the end becomes the artifact."""

    output: Path
    scratch: Path
    """Folder for temporary files, removed at the end."""
    unfinished: Path
    """Files here survive a build that fails or is stopped, until a build of this name succeeds."""


class State(str, Enum):
    """The state of an artifact on the disk."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    """The next use rebuilds it."""
    UNFINISHED = "unfinished"
    """Its build still runs, failed or was stopped; the next build resumes from what it left."""


@dataclass(frozen=True)
class Entry:
    """An artifact in the cache, as `quantchat cache` lists it."""

    name: str
    bytes: int
    used_s: float
    """Time of the last build or load, in seconds since the epoch."""
    state: State


class CheckpointCache:
    """The artifacts in `folder`; the first build creates the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = folder / ".parts"
        self._locks = folder / ".locks"
        self._unfinished = folder / ".unfinished"

    def find(self, name: str) -> Path | None:
        """Return the artifact's folder, or None if it is missing or incomplete.

        Compares file sizes with those in `made.json`. Hashing gigabytes at each start would take
        too long; `checkpoints.verify` does so at longer intervals.
        """
        folder = self.folder / name
        built = read_built(folder)
        if built is None:
            return None
        try:
            whole = all(
                (folder / file).stat().st_size == recorded.bytes
                for file, recorded in built.files.items()
            )
        except OSError:  # a file is missing
            return None
        return folder if whole else None

    async def make(
        self,
        name: str,
        build: Callable[[BuildFolders], Awaitable[dict[str, object]]],
        *,
        inputs: dict[str, object],
        versions: dict[str, str],
        on_wait: Callable[[], None],
    ) -> Path:
        """Return the folder of the artifact `name`; call `build` if it is not in the cache.

        `build` returns the `result` for `made.json`. `on_wait` is called once if another process is
        building the artifact. After a cancellation or an exception of `build`, only the files in
        `unfinished` remain. Raises OSError if the folder cannot be written.
        """
        for folder in (self.folder, self._parts, self._locks, self._unfinished):
            paths.private(folder)
        async with self._locked(name, on_wait):
            if (found := self.find(name)) is not None:
                return found
            await self._clear_leftovers(name)
            part = paths.private(self._parts / f"{name}.{uuid.uuid4().hex[:8]}")
            unfinished = paths.private(self._unfinished / name)
            try:
                folders = BuildFolders(
                    paths.private(part / "output"), paths.private(part / "scratch"), unfinished
                )
                began = time.monotonic()
                result = await build(folders)
                files = await asyncio.to_thread(_make_durable, folders.output)
                built = BuiltCheckpoint(
                    schema=SCHEMA,
                    inputs=inputs,
                    result=result,
                    versions=versions,
                    files=files,
                    seconds=round(time.monotonic() - began, 1),
                    finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                )
                _write(folders.output / MADE_FILE, json.dumps(asdict(built), indent=1) + "\n")
                made_at = self._publish(folders.output, part, name)
                unfinished.rename(part / "unfinished")
                return made_at
            finally:
                await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)
                with contextlib.suppress(OSError):  # not empty: a later build resumes from it
                    unfinished.rmdir()

    def entries(self) -> list[Entry]:
        """Return the artifacts in the cache, the most recently used first."""
        names = {*_folders(self.folder), *_folders(self._unfinished)}
        return sorted(map(self._entry, names), key=lambda entry: entry.used_s, reverse=True)

    def _entry(self, name: str) -> Entry:
        places = [f for f in (self.folder / name, self._unfinished / name) if f.is_dir()]
        state = State.WHOLE if self.find(name) else State.DAMAGED
        if places == [self._unfinished / name]:
            state = State.UNFINISHED
        return Entry(
            name, sum(map(_bytes, places)), max(map(_last_use, places), default=0.0), state
        )

    def note_use(self, name: str) -> None:
        """Record that the artifact `name` is used now; do nothing in a read-only cache."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / name / MADE_FILE)

    def remove(self, name: str) -> None:
        """Remove the artifact `name` and its unfinished build.

        Moves the folders away first, so that no process sees half of an artifact. Raises
        filelock.Timeout while a process builds it, OSError if it cannot be removed.
        """
        for folder in (self._parts, self._locks):
            paths.private(folder)
        with self._lock(name).acquire(blocking=False):
            part = paths.private(self._parts / f"{name}.{uuid.uuid4().hex[:8]}")
            for number, folder in enumerate((self.folder, self._unfinished)):
                with contextlib.suppress(FileNotFoundError):
                    (folder / name).rename(part / str(number))
            shutil.rmtree(part)

    def _publish(self, output: Path, part: Path, name: str) -> Path:
        final = self.folder / name
        if final.exists():  # damaged: `find` would have returned an intact artifact
            final.rename(part / "damaged")
        output.rename(final)
        _sync(self.folder)
        return final

    @contextlib.asynccontextmanager
    async def _locked(self, name: str, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Take the lock of `name` for the block; wait for it without blocking the event loop."""
        lock = self._lock(name)
        waiting = False
        while True:
            try:
                lock.acquire(blocking=False)
                break
            except Timeout:
                if not waiting:
                    waiting = True
                    on_wait()
                await asyncio.sleep(LOCK_POLL_S)
        try:
            yield
        finally:
            lock.release()

    async def _clear_leftovers(self, own_name: str) -> None:
        """Remove the folders of builds whose process died.

        These are the folders below `.parts` whose lock is free, and those of `own_name`, whose lock
        the caller has taken.
        """
        for part in list(self._parts.iterdir()):
            name = part.name.rpartition(".")[0]
            lock = self._lock(name)
            with contextlib.suppress(Timeout):
                if name != own_name:
                    lock.acquire(blocking=False)
                try:
                    await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)
                finally:
                    lock.release()  # does nothing for `own_name`, which is locked by another object

    def _lock(self, name: str) -> FileLock:
        return FileLock(self._locks / f"{name}.lock", mode=0o600)


def read_built(folder: Path) -> BuiltCheckpoint | None:
    """Return the content of `made.json` in `folder`; None if it is missing or cannot be read."""
    try:
        built = from_json(BuiltCheckpoint, json.loads((folder / MADE_FILE).read_bytes()))
    except (OSError, ValueError):
        return None
    return built if built.schema == SCHEMA else None


def _folders(folder: Path) -> list[str]:
    """Return the names of the artifacts' folders in `folder`; hidden folders are not artifacts."""
    try:
        return [f.name for f in folder.iterdir() if f.is_dir() and f.name[0] != "."]
    except OSError:
        return []


def _bytes(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                total += Path(place, file).stat().st_size
    return total


def _last_use(folder: Path) -> float:
    for file in (folder / MADE_FILE, folder):
        with contextlib.suppress(OSError):
            return file.stat().st_mtime
    return 0.0


def _make_durable(folder: Path) -> dict[str, BuiltFile]:
    """Make the files below `folder` private and fsync them; return their sizes and hashes."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
            continue
        path.chmod(0o600)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        recorded = BuiltFile(path.stat().st_size, sha256(path))
        files[path.relative_to(folder).as_posix()] = recorded
    return files


def _write(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
