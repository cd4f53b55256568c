"""Signals that stop a command: Ctrl+C, SIGTERM, and SIGHUP (sent when a terminal is closed).

The first Ctrl+C asks the work to stop, and its results so far are saved. The second ends work that
does not stop, and the third ends the process at once. SIGTERM and SIGHUP ask the work to stop, and
end it after `GRACE_S`. A signal that is ignored when the command starts stays ignored, because
nohup and background jobs of shells rely on that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that are handled."""

GRACE_S = 2.0
"""Seconds that the work has to stop after SIGTERM or SIGHUP before it is ended."""

LAST_S = 8.0
"""Seconds that the process has to save results after the work was ended."""

PRESS_AGAIN = (
    "stopping; press Ctrl+C again to end work that does not stop, a third time to end at once"
)


class _Listener:
    """Handles the signals from `install` to `remove` and passes them on to the running work."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._before: dict[signal.Signals, signal._HANDLER] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ask: Callable[[], None] = lambda: None
        self._end: Callable[[], None] = lambda: None
        self._worked = False
        """Whether work has ended, so that its results are being saved now."""
        self._pressed = 0
        """Number of times that Ctrl+C was pressed."""
        self._asked = self._ended = False
        self._timers: list[threading.Timer] = []

    def install(self) -> None:
        for number in NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)

    def remove(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for timer in self._timers:
            timer.cancel()

    @contextlib.contextmanager
    def during(self, ask: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
        self._loop, self._ask, self._end = asyncio.get_running_loop(), ask, end
        try:
            yield
        finally:
            self._loop, self._worked = None, True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._loop is None and not self._worked:  # no work has started: nothing to save
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        if number != signal.SIGINT:
            self._later(GRACE_S, lambda: self._end_work(number))
            self._ask_work("")
            return
        self._pressed += 1
        if self._pressed == 1:
            self._ask_work(PRESS_AGAIN)
        elif self._pressed == 2:
            self._end_work(number)
        else:
            os._exit(128 + number)  # the workers end with this process

    def _ask_work(self, message: str) -> None:
        global _asked_to_stop
        if not self._asked:
            self._asked = _asked_to_stop = True
            self._call(self._ask)
            if message:
                self._call(lambda: self._report(message))

    def _end_work(self, number: int) -> None:
        if not self._ended:
            self._ended = True
            # The event loop may hang because a driver or a disk does not answer.
            self._later(LAST_S, lambda: os._exit(128 + number))
            self._call(self._end)

    def _call(self, call: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                self._loop.call_soon_threadsafe(call)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()


_asked_to_stop = False


def asked_to_stop() -> bool:
    """Return whether a signal has asked any work of this process to stop."""
    return _asked_to_stop


_listener: _Listener | None = None
"""The listener of this process; None outside `handled`."""


@contextlib.contextmanager
def handled(report: Callable[[str], None] = lambda text: None) -> Iterator[_Listener]:
    """Handle the signals within this context, also while results are saved after `on_signals`.

    A signal during saving does not interrupt it. At the first Ctrl+C, `report` is called with a
    line for the user.
    """
    global _listener
    before, listener = _listener, _Listener(report)
    listener.install()
    _listener = listener
    try:
        yield listener
    finally:
        _listener = before
        listener.remove()


@contextlib.contextmanager
def on_signals(ask: Callable[[], None], end: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within this context, call `ask` when the work should stop, and `end` when it must end.

    Both are called in the running event loop.
    """
    handling = contextlib.nullcontext(_listener) if _listener else handled()
    with handling as listener, listener.during(ask, end):
        yield
