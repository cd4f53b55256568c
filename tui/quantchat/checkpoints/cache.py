"""The cache of made checkpoints: each artifact a folder that is whole, or not there.

An artifact is built aside, described by its `made.json`, and renamed into place. A lock for each
name keeps two processes from making the same thing; who comes second finds it made. Nothing here
knows what is being made.

    checkpoints/<name>/            the artifact, with its made.json
    checkpoints/.parts/<name>.*/   one under way, or what a dead maker left
    checkpoints/.unfinished/<name>/  what a later try can go on from
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

MADE = "made.json"
SCHEMA = 1

LOCK_POLL_S = 0.2
"""How often a lock that another process holds is tried again."""


@dataclass(frozen=True)
class BuiltCheckpoint:
    """What `made.json` tells of an artifact."""

    schema: int
    inputs: dict[str, Any]
    """What went in, and so what the name's hash stands for."""
    result: dict[str, Any]
    """What the maker had to say of it."""
    versions: dict[str, str]
    """Of the libraries, by name."""
    files: dict[str, dict[str, Any]]
    """`bytes` and `sha256` of each file, by its path inside the artifact."""
    seconds: float
    """What it took."""
    finished: str
    """When, as ISO 8601 in UTC."""


@dataclass(frozen=True)
class Site:
    """Where an artifact is built: what lies in `output` at the end is the artifact."""

    output: Path
    scratch: Path
    unfinished: Path
    """What lies here outlives a build that fails or is stopped, until one of that name is whole."""


class State(str, Enum):
    """What is there of an artifact."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    """It will be made anew when it is wanted."""
    UNFINISHED = "unfinished"
    """Making it was stopped; what is here is where the next try goes on."""


@dataclass(frozen=True)
class Entry:
    """An artifact that lies in the cache."""

    name: str
    bytes: int
    used_s: float
    """When it was last made or loaded, seconds since the epoch."""
    state: State


class CheckpointCache:
    """Artifacts in `folder`, which is made when the first one is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = folder / ".parts"
        self._locks = folder / ".locks"
        self._unfinished = folder / ".unfinished"

    def find(self, name: str) -> Path | None:
        """Return the artifact's folder if it is there and whole.

        Whole is judged by its `made.json` and the sizes in it: reading gigabytes again at each
        start would cost more than it tells.
        """
        folder = self.folder / name
        made = read_built(folder)
        if made is None:
            return None
        try:
            whole = all(
                (folder / file).stat().st_size == told["bytes"] for file, told in made.files.items()
            )
        except (OSError, LookupError, TypeError):  # a file is gone, or made.json was meddled with
            return None
        return folder if whole else None

    async def make(
        self,
        name: str,
        build: Callable[[Site], Awaitable[dict[str, object]]],
        *,
        inputs: dict[str, object],
        versions: dict[str, str],
        on_wait: Callable[[], None],
    ) -> Path:
        """Return the artifact `name`, which `build` makes unless it is there.

        `build` returns what is to be remembered of it. `on_wait` is called once if another process
        is making it. Cancelling, and whatever `build` raises, leave no trace but what it put into
        `unfinished`. Raises OSError where the folder cannot be written.
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
                site = Site(
                    paths.private(part / "output"), paths.private(part / "scratch"), unfinished
                )
                began = time.monotonic()
                result = await build(site)
                files = await asyncio.to_thread(_settle, site.output)
                made = BuiltCheckpoint(
                    schema=SCHEMA,
                    inputs=inputs,
                    result=result,
                    versions=versions,
                    files=files,
                    seconds=round(time.monotonic() - began, 1),
                    finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                )
                _write(site.output / MADE, json.dumps(asdict(made), indent=1) + "\n")
                made_at = self._publish(site.output, part, name)
                unfinished.rename(part / "unfinished")
                return made_at
            finally:
                await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)
                with contextlib.suppress(OSError):  # there is something in it
                    unfinished.rmdir()

    def entries(self) -> list[Entry]:
        """What lies here, the one used last first."""
        names = {*_folders(self.folder), *_folders(self._unfinished)}
        return sorted(map(self._entry, names), key=lambda entry: entry.used_s, reverse=True)

    def _entry(self, name: str) -> Entry:
        places = [f for f in (self.folder / name, self._unfinished / name) if f.is_dir()]
        state = State.WHOLE if self.find(name) else State.DAMAGED
        if places == [self._unfinished / name]:
            state = State.UNFINISHED
        return Entry(name, sum(map(_bytes, places)), max(map(_used, places), default=0.0), state)

    def note_use(self, name: str) -> None:
        """Remember that the artifact `name` is used now, where the folder can be written."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / name / MADE)

    def remove(self, name: str) -> None:
        """Remove the artifact `name`, at once and whole.

        Raises Timeout (of filelock) while a process makes it, OSError where it cannot be removed.
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
        if final.exists():  # damaged, or `find` had found it
            final.rename(part / "damaged")
        output.rename(final)
        _sync(self.folder)
        return final

    @contextlib.asynccontextmanager
    async def _locked(self, name: str, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Hold the lock of `name`; the event loop goes on while it is another's."""
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

    async def _clear_leftovers(self, held: str) -> None:
        """Remove what makers left that died: the parts whose lock is ours (`held`) or nobody's."""
        for part in list(self._parts.iterdir()):
            name = part.name.rpartition(".")[0]
            lock = self._lock(name)
            with contextlib.suppress(Timeout):
                if name != held:
                    lock.acquire(blocking=False)
                try:
                    await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)
                finally:
                    lock.release()

    def _lock(self, name: str) -> FileLock:
        return FileLock(self._locks / f"{name}.lock", mode=0o600)


def read_built(folder: Path) -> BuiltCheckpoint | None:
    """Return what `folder`'s `made.json` tells, or None where it is missing or not understood."""
    try:
        body = json.loads((folder / MADE).read_bytes())
        made = BuiltCheckpoint(**body)
    except (OSError, ValueError, TypeError):
        return None
    return made if made.schema == SCHEMA else None


def _folders(folder: Path) -> list[str]:
    """Names of the folders in `folder` that are artifacts' own."""
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


def _used(folder: Path) -> float:
    for file in (folder / MADE, folder):
        with contextlib.suppress(OSError):
            return file.stat().st_mtime
    return 0.0


def _settle(folder: Path) -> dict[str, dict[str, Any]]:
    """Make the files below `folder` private and put them on the disk; return sizes and hashes."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
            continue
        path.chmod(0o600)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        told = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        files[path.relative_to(folder).as_posix()] = told
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
