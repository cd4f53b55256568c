"""Commands come in through a thread of their own, so that a stop is seen between two tokens."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable

from quantchat.wire.codec import ProtocolError
from quantchat.wire.messages import Command, Generate, Shutdown, Stop, decode_command
from quantchat.worker import threads
from quantchat.worker.parent_watchdog import end_now


class Inbox:
    """Reads commands from descriptor `fd`. Its end, or Shutdown, ends the process at once.

    An exception while reading ends it too, once `failed` has reported the exception: a worker that
    hears no command cannot be stopped.
    """

    def __init__(self, fd: int, failed: Callable[[BaseException], None]) -> None:
        self._fd = fd
        self._queue: queue.SimpleQueue[tuple[int, Command | ProtocolError]] = queue.SimpleQueue()
        self._stopped = -1
        self._came = 0
        """Commands that came so far."""
        self._current = 0
        """Which of them was taken last."""

        def end(error: BaseException) -> None:
            failed(error)
            end_now()

        threads.start("inbox", self._run, end)

    def next(self) -> Command:
        """Wait for the next command. Raises ProtocolError for a line that is none."""
        self._current, item = self._queue.get()
        if isinstance(item, ProtocolError):
            raise item
        return item

    def stopped(self, turn: int) -> bool:
        """Whether a stop for `turn` has come. Cheap: asked between any two tokens."""
        return self._stopped == turn

    def overtaken(self) -> bool:
        """Whether any command, a stop among them, came after the one that was taken last."""
        return self._came > self._current

    def _run(self) -> None:
        with os.fdopen(self._fd, "rb") as lines:
            for line in lines:
                self._came += 1
                try:
                    command = decode_command(line)
                except ProtocolError as error:
                    self._queue.put((self._came, error))
                    continue
                if isinstance(command, Stop):
                    # This very turn: those of a measurement have other numbers than a chat's.
                    self._stopped = command.turn
                elif isinstance(command, Shutdown):
                    break
                else:
                    if isinstance(command, Generate) and command.turn == self._stopped:
                        self._stopped = -1  # a new chat numbers its turns from one again
                    self._queue.put((self._came, command))
        end_now()
