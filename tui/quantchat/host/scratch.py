"""A folder for temporary files for each worker, which is gone when the worker is.

Libraries leave gigabytes in them: GPTQModel a copy of the model, where its loading is ended. The
folder is locked while its owner lives, so that a later start finds those whose owner was killed.
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
    """A new folder among the temporary files of this machine. Raises OSError."""

    def __init__(self) -> None:
        self.path, self._lock = _locked_folder()

    def remove(self) -> None:
        """Remove it with all that lies in it, as far as that can be. May be called twice."""
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
        except OSError:  # a file system without locks: nobody will find it, should we be killed
            return path, None
        # Another process found it before it was locked, and took it for a dead one's.


def _lock(path: Path) -> int | None:
    """Lock the folder `path` until the descriptor is closed; None where another process has it.

    Raises OSError where it is gone, or no folder of ours.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been removed between the two calls, and made again by its name.
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
    """Remove in a thread, the first time it is called, what dead owners have left."""
    if not _swept.is_set():
        _swept.set()
        threading.Thread(target=sweep, name="sweep", daemon=True).start()


def sweep() -> None:
    """Remove the folders of this user whose owner lives no more."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another's, or gone meanwhile
            if path.lstat().st_uid == os.getuid() and (lock := _lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
