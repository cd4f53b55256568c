"""SIGTERM and SIGHUP, which a terminal sends when it goes, end a command as Ctrl+C does.

So there is one way in which a command that is stopped cleans up: KeyboardInterrupt, which cancels
what asyncio runs. A command that keeps what it has measured hears the signals itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

LAST_S = 10.0
"""Cleaning up that takes longer is ended with the process: a disk may not answer."""


class Ending:
    """Remembers which signal ended the command."""

    status = 128 + signal.SIGINT
    """Exit status of a command that was interrupted, as shells have it."""
    timer: threading.Timer | None = None
    """Ends the process, once there is a signal."""

    def heard(self, number: int, frame: FrameType | None) -> None:
        """Interrupt what goes on, the first time; a terminal that goes may send both signals."""
        del frame
        if self.status != 128 + signal.SIGINT:
            return
        self.status = 128 + number
        self.timer = threading.Timer(LAST_S, os._exit, [self.status])
        self.timer.daemon = True
        self.timer.start()
        if callable(signal.getsignal(signal.SIGINT)):
            signal.raise_signal(signal.SIGINT)  # asyncio has a handler of its own for it
        else:  # ignored, as in a background job of a script
            raise KeyboardInterrupt


@contextlib.contextmanager
def like_ctrl_c() -> Iterator[Ending]:
    """Let both signals interrupt within this context, but those that are ignored on purpose."""
    ending, before = Ending(), {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # not in the main thread there are no handlers
                before[number] = signal.signal(number, ending.heard)
    try:
        yield ending
    finally:
        if ending.timer is not None:
            ending.timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
