"""Makes SIGTERM and SIGHUP (sent when a terminal is closed) end a command as Ctrl+C does.

So a command gets a KeyboardInterrupt, however it is stopped. This cancels its asyncio tasks, and
the command always cleans up in the same way. Commands that save partial results handle the signals
themselves (see `host.signals`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

CLEANUP_S = 10.0
"""Most seconds for cleaning up after the signal. Then the process is ended by force, because the
clean-up may wait for a disk that hangs."""


class Ending:
    """Remembers which signal ended the command."""

    status = 128 + signal.SIGINT
    """Exit status of the command: 128 + the signal's number, by the convention of shells."""
    timer: threading.Timer | None = None
    """Ends the process `CLEANUP_S` after the first signal."""

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the command at the first signal only: a closing terminal may send both."""
        del frame
        if self.status != 128 + signal.SIGINT:
            return
        self.status = 128 + number
        self.timer = threading.Timer(CLEANUP_S, os._exit, [self.status])
        self.timer.daemon = True
        self.timer.start()
        if callable(signal.getsignal(signal.SIGINT)):
            signal.raise_signal(signal.SIGINT)  # asyncio may have set its own SIGINT handler
        else:  # SIGINT is ignored, as in a background job of a script
            raise KeyboardInterrupt


@contextlib.contextmanager
def like_ctrl_c() -> Iterator[Ending]:
    """Make SIGTERM and SIGHUP interrupt within this context; ignored signals stay ignored."""
    ending, before = Ending(), {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # only the main thread may set handlers
                before[number] = signal.signal(number, ending.handle)
    try:
        yield ending
    finally:
        if ending.timer is not None:
            ending.timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
