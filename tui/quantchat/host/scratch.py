"""A temporary folder for each worker, removed when the worker ends.

Libraries leave gigabytes behind: GPTQModel leaves a copy of the model if loading is interrupted.
The process that creates a folder keeps it locked until it ends, so that a later start can find and
remove the folders of processes that were killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
from pathlib import Path

_PREFIX = "quantchat-worker-"


class Scratch:
    """A new folder in the system's temporary folder. Raises OSError."""

    def __init__(self) -> None:
        self.path, self._lock = _locked_folder()

    def remove(self) -> None:
        """Remove the folder and its content, ignoring errors. May be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked_folder() -> tuple[Path, int | None]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            if (lock := _lock(path)) is not None:
                return path, lock
        except FileNotFoundError:
            pass
        except OSError:  # a file system without locks: after a kill, the folder stays
            return path, None
        # Another process swept the folder before it was locked: try again.


def _lock(path: Path) -> int | None:
    """Lock the folder `path`; return the descriptor, which releases the lock when it is closed.

    Returns None if another process has the lock, or has replaced the folder meanwhile. Raises
    OSError if the folder does not exist, cannot be opened or cannot be locked.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The folder may have been removed and recreated between `open` and `flock`.
        if os.path.samestat(os.fstat(folder), path.stat()):
            return folder
    except BlockingIOError:
        pass
    except BaseException:
        os.close(folder)
        raise
    os.close(folder)
    return None


_swept = threading.Event()


def sweep_once() -> None:
    """Run `sweep` in a thread at the first call; do nothing at later calls."""
    if not _swept.is_set():
        _swept.set()
        threading.Thread(target=sweep, name="sweep", daemon=True).start()


def sweep() -> None:
    """Remove this user's scratch folders whose process has ended."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's folder, or removed meanwhile
            if path.lstat().st_uid == os.getuid() and (lock := _lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
