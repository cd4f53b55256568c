"""The terminal itself: who may write to it, and what happens when it goes away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

from quantchat import paths
from quantchat.app.terminal_output import TerminalOutput
from quantchat.text import one_line

SIGNALS: tuple[signal.Signals, ...] = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
"""Upon which the program leaves in good order. Ctrl+C is a key on the screen, and no signal."""

LAST_S = 1.0
"""An end that takes longer than this is ended."""

KEEP_S = 6.0
"""So long it may take then to keep what nobody saved: a disk may be slow, or not answer at all."""

_SCREEN_OFF = "\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1049l\x1b[?25h"
"""Mouse and paste reports off, the alternate screen left, the cursor shown (xterm, ctlseqs)."""


@dataclass(frozen=True)
class Pace:
    """How much is sent to the terminal."""

    frames_per_second: int
    """Most frames. A key's echo waits for one; what streams in is drawn far more seldom, so that
    more of them cost no bytes."""
    draws_per_second: float
    """How often what streams in is drawn."""
    step: int
    """Lines by which a streamed answer moves up at a time: where it moves, all that is seen is
    sent anew."""
    mouse: bool
    """Whether the terminal reports the mouse, each move of it included."""


LOCAL = Pace(frames_per_second=60, draws_per_second=6, step=1, mouse=True)
REMOTE = Pace(frames_per_second=30, draws_per_second=4, step=4, mouse=True)
LOW_BANDWIDTH = Pace(frames_per_second=15, draws_per_second=1, step=8, mouse=False)

_chosen: Pace | None = None


def pace(low_bandwidth: bool | None = None) -> Pace:
    """What was chosen by `quieten_textual`; else what suits: less over a network."""
    if low_bandwidth is not None:
        return LOW_BANDWIDTH if low_bandwidth else LOCAL
    return _chosen or (REMOTE if over_ssh() else LOCAL)


def over_ssh() -> bool:
    """Whether the screen is drawn over a network."""
    return bool(os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"))


def quieten_textual(low_bandwidth: bool | None = None) -> None:
    """Set what Textual reads from the environment; to be called before its first import.

    The wait that tells Esc from the start of an escape sequence comes off the time in which Esc
    must stop the decoding. `low_bandwidth` chooses the pace.
    """
    global _chosen
    _chosen = None if low_bandwidth is None else pace(low_bandwidth)
    os.environ.setdefault("TEXTUAL_FPS", str(pace().frames_per_second))
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
    os.environ.setdefault("ESCDELAY", "50")
    # A size that something around exported is believed before the terminal, and never changes.
    for stale in ("COLUMNS", "LINES"):
        os.environ.pop(stale, None)


@contextlib.contextmanager
def guarded_stderr() -> Iterator[Path]:
    """Keep descriptor 2 away from the screen, which Textual draws through `sys.__stderr__`.

    Native libraries and child processes write to descriptor 2; within this context it is a log
    file, which is yielded, and Textual draws through a copy of the terminal's descriptor. Raises
    OSError where the log cannot be made. One in which nothing was written is taken away again.
    """
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-screen-{os.getpid()}.log"
    log = paths.private(paths.logs_dir()) / name
    before = sys.__stderr__
    sys.stderr.flush()
    terminal = os.dup(2)
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log_fd, 2)
    os.close(log_fd)
    output = TerminalOutput(terminal)
    sys.__stderr__ = cast("Any", output)  # type: ignore[misc]
    try:
        yield log
    finally:
        sys.__stderr__ = before  # type: ignore[misc]
        sys.stderr.flush()
        output.close()
        os.dup2(terminal, 2)
        os.close(terminal)
        with contextlib.suppress(OSError):
            if log.stat().st_size == 0:
                log.unlink()


def hung_up(descriptor: int) -> bool:
    """Whether the terminal at `descriptor` is gone.

    A process that ignores SIGHUP (under nohup, say) is told in no other way.
    """
    poll = select.poll()
    try:
        poll.register(descriptor, 0)  # POLLHUP and POLLERR are always reported
        return any(event & (select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0))
    except (OSError, ValueError):
        return True


def on_signals(leave: Callable[[int], None], last: Callable[[], list[str]]) -> None:
    """Call `leave(signal number)` on the running loop for each of `SIGNALS` that is not ignored.

    `last` is for an end that takes too long (see `end_for_sure`).

    By default they end the process at once, before anything could be cleaned up. What is ignored
    was ignored on purpose, as nohup does: `hung_up` tells then when the terminal really goes.
    """
    loop = asyncio.get_running_loop()

    def heard(number: int, frame: FrameType | None) -> None:
        del frame
        with contextlib.suppress(RuntimeError):  # the loop is closed: the end is near anyway
            loop.call_soon_threadsafe(leave, number)
        end_for_sure(128 + number, last)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            # Not in the main thread (as in some tests) there are no signal handlers.
            with contextlib.suppress(ValueError):
                signal.signal(number, heard)


def end_for_sure(status: int, last: Callable[[], list[str]]) -> None:
    """End this process with `status` after `LAST_S`, if it has not ended by then.

    The event loop may be stuck: behind a terminal that does not read, a driver that hangs. The
    workers end with this process. `last` is called before, and has `KEEP_S`; the lines it returns
    are written on the terminal.
    """

    def end() -> None:
        lines = ["what nobody had saved could not be kept in time"]

        def keep() -> None:
            lines[:] = last()

        keeping = threading.Thread(target=keep, daemon=True)
        keeping.start()
        keeping.join(KEEP_S)
        if lines:
            _write_past_the_screen(lines)
        os._exit(status)

    timer = threading.Timer(LAST_S, end)
    timer.daemon = True
    timer.start()


def _write_past_the_screen(lines: list[str]) -> None:
    """Leave the screen and write `lines`, as far as the terminal takes them at once."""
    text = _SCREEN_OFF + "".join(f"\rquantchat: {one_line(line)}\r\n" for line in lines)
    with contextlib.suppress(OSError):  # it may be gone
        terminal = os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        os.write(terminal, text.encode("utf-8", "replace"))
