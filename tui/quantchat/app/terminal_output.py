"""Writes to a terminal that may be slow, stop reading or vanish, without blocking quantchat."""

from __future__ import annotations

import contextlib
import os
import select
import time

GIVE_UP_S = 1.0
"""While quantchat ends, writing is given up after this many seconds without progress."""
_POLL_MS = 100


class TerminalOutput:
    """A text file that writes to the terminal at `descriptor`, which the caller closes.

    Textual writes to it in a separate thread. If the terminal is gone, text is dropped: an error
    would end the thread, and Textual would wait for it for ever.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._own = _reopened(descriptor)
        self._most_s: float | None = None
        """Longest time, in s, in which the terminal may accept nothing; None means no limit."""
        self._progress_s = 0.0
        """When the terminal last accepted bytes, by the monotonic clock."""

    def write(self, text: str) -> int:
        """Write `text`; return its length, as text files do.

        Takes as long as the terminal needs, unless `limit_waiting` was called.
        """
        left = memoryview(text.encode("utf-8", "replace"))
        while left:
            try:
                left = left[os.write(self._target, left) :]
                self._progress_s = time.monotonic()
            except BlockingIOError:
                waited_s = time.monotonic() - self._progress_s
                if self._most_s is not None and waited_s > self._most_s:
                    break
                _wait_until_writable(self._target)
            except OSError:
                break
        return len(text)

    def limit_waiting(self, most_s: float | None) -> None:
        """From now on, give up if the terminal accepts nothing for `most_s` seconds.

        None means never.
        """
        self._most_s, self._progress_s = most_s, time.monotonic()

    def flush(self) -> None:
        """Do nothing: `write` does not buffer."""

    def fileno(self) -> int:
        """Return the caller's descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def close(self) -> None:
        """Close the descriptor that was opened here."""
        own, self._own = self._own, None
        if own is not None:
            os.close(own)

    @property
    def _target(self) -> int:
        return self._descriptor if self._own is None else self._own


def _reopened(descriptor: int) -> int | None:
    """Open the terminal at `descriptor` a second time, non-blocking; None if that fails.

    O_NONBLOCK on `descriptor` itself would also apply to the shell that started quantchat.
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
    poll.poll(_POLL_MS)
