"""The way to the terminal: it may be slow, stop reading, or vanish, and none of it holds us up."""

from __future__ import annotations

import contextlib
import os
import select
import time

LEAVING_S = 1.0
"""Seconds that a terminal which takes nothing is waited for once the program leaves."""
_LOOK_AGAIN_MS = 100


class TerminalOutput:
    """A text file that writes to the terminal at `descriptor`, which stays the caller's.

    Textual writes to it in a thread of its own. What cannot be written since the terminal is gone
    is dropped: the thread would die of the error, and the screen wait for it for ever.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._own = _opened_anew(descriptor)
        self._leaving = False
        self._moved_s = 0.0
        """When the terminal last took something, by the monotonic clock."""

    def write(self, text: str) -> int:
        """Write `text`, for as long as that takes; returns its length, as text files do."""
        left = memoryview(text.encode("utf-8", "replace"))
        while left:
            try:
                left = left[os.write(self._target, left) :]
                self._moved_s = time.monotonic()
            except BlockingIOError:
                if self._leaving and time.monotonic() - self._moved_s > LEAVING_S:
                    break
                _wait_until_writable(self._target)
            except OSError:
                break
        return len(text)

    def leave(self) -> None:
        """From now on wait no longer than `LEAVING_S` for a terminal that takes nothing."""
        self._leaving, self._moved_s = True, time.monotonic()

    def stay(self) -> None:
        """Wait for the terminal again for as long as it takes."""
        self._leaving = False

    def flush(self) -> None:
        """Nothing is held back."""

    def fileno(self) -> int:
        """The caller's descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def close(self) -> None:
        """Give back what was opened here."""
        own, self._own = self._own, None
        if own is not None:
            os.close(own)

    @property
    def _target(self) -> int:
        return self._descriptor if self._own is None else self._own


def _opened_anew(descriptor: int) -> int | None:
    """The terminal at `descriptor`, opened once more, not to block; None where that cannot be.

    Set on `descriptor` itself, O_NONBLOCK would hold for the shell that we were started from.
    """
    opened = None
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
        opened = os.open(os.ttyname(descriptor), flags)
        if os.fstat(opened).st_rdev == os.fstat(descriptor).st_rdev:
            return opened
    if opened is not None:
        os.close(opened)
    return None


def _wait_until_writable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll(_LOOK_AGAIN_MS)
