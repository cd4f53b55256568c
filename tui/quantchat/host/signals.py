"""Signals that stop a command: Ctrl+C, SIGTERM, and SIGHUP, which a terminal sends when it goes.

The first Ctrl+C asks the work to stop, and what it has is kept. The second one ends what does not
stop, and the third one the process, at once. SIGTERM and SIGHUP ask, and end by themselves what
has not stopped `GRACE_S` later. A signal that is ignored when the command starts stays ignored:
that is how nohup and a shell's background jobs are protected.
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

GRACE_S = 2.0
"""Seconds that the work has to stop by itself after SIGTERM or SIGHUP, before it is ended."""

LAST_S = 8.0
"""Seconds that the process has to save what there is after the work was ended."""

AGAIN = "stopping; Ctrl+C again ends what does not stop, and a third time ends at once"


class _Listener:
    """Hears the signals from `install` to `remove`, and passes them on to the work under way."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._before: dict[signal.Signals, signal._HANDLER] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ask: Callable[[], None] = lambda: None
        self._end: Callable[[], None] = lambda: None
        self._worked = False
        """Whether work was under way before: its result is about to be saved."""
        self._pressed = 0
        """How often Ctrl+C was pressed."""
        self._asked = self._ended = False
        self._timers: list[threading.Timer] = []

    def install(self) -> None:
        for number in NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._heard)

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

    def _heard(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._loop is None and not self._worked:  # nothing has begun: there is nothing to keep
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        if number != signal.SIGINT:
            self._later(GRACE_S, lambda: self._end_work(number))
            self._ask_work("")
            return
        self._pressed += 1
        if self._pressed == 1:
            self._ask_work(AGAIN)
        elif self._pressed == 2:
            self._end_work(number)
        else:
            os._exit(128 + number)  # the workers end with this process

    def _ask_work(self, told: str) -> None:
        if not self._asked:
            self._asked = True
            self._call(self._ask)
            if told:
                self._call(lambda: self._tell(told))

    def _end_work(self, number: int) -> None:
        if not self._ended:
            self._ended = True
            # The event loop may hang, as behind a driver or a disk that does not answer.
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


_listener: _Listener | None = None
"""The one that hears signals now: they belong to the process."""


@contextlib.contextmanager
def held(tell: Callable[[str], None] = lambda text: None) -> Iterator[_Listener]:
    """Hear the signals until the context ends: what `on_signals` kept can be saved meanwhile.

    Before and after the work in it a first signal ends nothing that is to be saved. `tell` is
    called with a line for the user at the first Ctrl+C.
    """
    global _listener
    before, listener = _listener, _Listener(tell)
    listener.install()
    _listener = listener
    try:
        yield listener
    finally:
        _listener = before
        listener.remove()


@contextlib.contextmanager
def on_signals(ask: Callable[[], None], end: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Call `ask` on the running loop when the work shall stop, and `end` when it must."""
    hearing = contextlib.nullcontext(_listener) if _listener else held()
    with hearing as listener, listener.during(ask, end):
        yield
