"""Read commands in a separate thread, so that a stop takes effect between two tokens."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from typing import TYPE_CHECKING, Union

from quantchat.wire.codec import ProtocolError
from quantchat.wire.messages import Generate, LoadModel, ScoreTokens, Shutdown, Stop, StopScoring
from quantchat.wire.protocol import decode_command
from quantchat.worker import threads
from quantchat.worker.parent_watchdog import end_now

if TYPE_CHECKING:
    from quantchat.wire.jobs import AnyJob

Request = Union[LoadModel, Generate, ScoreTokens, "AnyJob"]
"""Commands that are carried out in order, one at a time. All other commands act as soon as they
are read."""


class Inbox:
    """Reads commands from the pipe `fd`, and ends the process when the pipe ends or at Shutdown.

    An exception while reading also ends the process, because a worker that reads no commands could
    not be stopped. Before the process ends, `failed` is called with the exception.
    """

    def __init__(self, fd: int, failed: Callable[[BaseException], None]) -> None:
        self._fd = fd
        self._queue: queue.SimpleQueue[tuple[int, Request | ProtocolError]] = queue.SimpleQueue()
        self._stopped: int | None = None
        """The turn of the last `Stop` command."""
        self._received = 0
        """Number of commands read so far."""
        self._current = 0
        """Number of the command that `next` returned last."""

        def end(error: BaseException) -> None:
            failed(error)
            end_now()

        threads.start("inbox", self._run, end)

    def next(self) -> Request:
        """Wait for the next request. Raises ProtocolError for a line that is not a command."""
        self._current, item = self._queue.get()
        if isinstance(item, ProtocolError):
            raise item
        return item

    def stopped(self, turn: int) -> bool:
        """Return whether a `Stop` for `turn` was read. Cheap enough to call for every token."""
        return self._stopped == turn

    def cancelled(self) -> bool:
        """Return whether a command was read after the request that `next` returned last."""
        return self._received > self._current

    def _run(self) -> None:
        with os.fdopen(self._fd, "rb") as lines:
            for line in lines:
                self._received += 1
                try:
                    command = decode_command(line)
                except ProtocolError as error:
                    self._queue.put((self._received, error))
                    continue
                if isinstance(command, Stop):
                    self._stopped = command.turn
                elif isinstance(command, Shutdown):
                    break
                elif not isinstance(command, StopScoring):  # counting it is enough: `cancelled`
                    self._queue.put((self._received, command))
        end_now()
