"""The terminal: limit output, redirect stderr to a log, and end quantchat if it is closed."""

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
"""Signals after which quantchat cleans up and ends. On the screen, Ctrl+C is a key, not a
signal."""

CLEANUP_S = 1.0
"""Seconds that the ordinary cleanup may take. After that, unsaved work is saved from another
thread, and the process is ended by force."""

SAVE_S = 6.0
"""Most seconds that saving in that other thread may take: a disk may be slow or not respond."""

_SCREEN_OFF = "\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1049l\x1b[?25h"
"""Turns mouse and paste reports off, leaves the alternate screen, shows the cursor (xterm,
ctlseqs)."""


@dataclass(frozen=True)
class Pace:
    """How often, and how much, is sent to the terminal."""

    frames_per_second: int
    """Most frames per second. A typed character appears with the next frame, so a high value makes
    typing feel quick. A high value does not send more bytes: streamed text is drawn only
    `draws_per_second` times."""
    draws_per_second: float
    """How many times a second streamed text is drawn."""
    step: int
    """Lines by which a streamed answer scrolls at a time: scrolling sends all visible lines
    again."""
    mouse: bool
    """Whether the terminal reports the mouse, including every movement."""


LOCAL = Pace(frames_per_second=60, draws_per_second=6, step=1, mouse=True)
REMOTE = Pace(frames_per_second=30, draws_per_second=4, step=4, mouse=True)
LOW_BANDWIDTH = Pace(frames_per_second=15, draws_per_second=1, step=8, mouse=False)

_chosen: Pace | None = None


def pace(low_bandwidth: bool | None = None) -> Pace:
    """Return the pace that `low_bandwidth` chooses.

    None means the pace that `configure_textual` chose or, if it chose none, `REMOTE` over SSH and
    else `LOCAL`.
    """
    if low_bandwidth is not None:
        return LOW_BANDWIDTH if low_bandwidth else LOCAL
    return _chosen or (REMOTE if over_ssh() else LOCAL)


def over_ssh() -> bool:
    """Return whether this is an SSH session."""
    return bool(os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"))


def configure_textual(low_bandwidth: bool | None = None) -> None:
    """Set the environment variables that Textual reads. Call this before importing Textual.

    `low_bandwidth` chooses the pace (see `pace`). ESCDELAY is the time in ms that Textual waits to
    tell the key Esc from an escape sequence; it is short, because Esc stops the answers.
    """
    global _chosen
    _chosen = None if low_bandwidth is None else pace(low_bandwidth)
    os.environ.setdefault("TEXTUAL_FPS", str(pace().frames_per_second))
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
    os.environ.setdefault("ESCDELAY", "50")
    # Textual prefers these to the terminal's size, and an exported size never changes.
    for stale in ("COLUMNS", "LINES"):
        os.environ.pop(stale, None)


@contextlib.contextmanager
def guarded_stderr() -> Iterator[Path]:
    """Redirect descriptor 2 to a log file while Textual draws; yield the path of the log.

    Native libraries and child processes write to descriptor 2, and Textual draws through
    `sys.__stderr__`. Within this context Textual draws through a copy of the terminal's
    descriptor instead. An empty log is deleted at the end. Raises OSError if the log cannot be
    created.
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


def is_hung_up(descriptor: int) -> bool:
    """Return whether the terminal at `descriptor` is closed.

    A process that ignores SIGHUP (for example under nohup) has no other way to find out.
    """
    poll = select.poll()
    try:
        poll.register(descriptor, 0)  # POLLHUP and POLLERR are always reported
        return any(event & (select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0))
    except (OSError, ValueError):
        return True


def on_signals(end: Callable[[int], None], save: Callable[[], list[str]]) -> None:
    """Call `end(signal number)` on the running loop for each of `SIGNALS` that is not ignored.

    `save` saves unsaved work and returns lines to print. `force_end_later` calls it if `end`
    takes too long.

    Without a handler, these signals end the process before it can clean up. An ignored signal
    stays ignored, because nohup relies on that; then only `is_hung_up` finds a closed terminal.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        with contextlib.suppress(RuntimeError):  # the loop is closed: quantchat is ending
            loop.call_soon_threadsafe(end, number)
        force_end_later(128 + number, save)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            # Only the main thread may set handlers, and some tests run in another thread.
            with contextlib.suppress(ValueError):
                signal.signal(number, handle)


def force_end_later(status: int, save: Callable[[], list[str]]) -> None:
    """End this process with `status` after `CLEANUP_S`, if it has not ended by then.

    The event loop may be stuck because a terminal does not read or a driver hangs. So after
    `CLEANUP_S` another thread calls `save`, which has `SAVE_S` to save unsaved work. The lines that
    `save` returns are written to the terminal. Then the process is ended, and the workers with it.
    """

    def end() -> None:
        lines = ["unsaved work could not be saved in time"]

        def save_work() -> None:
            lines[:] = save()

        saving = threading.Thread(target=save_work, daemon=True)
        saving.start()
        saving.join(SAVE_S)
        if lines:
            _write_to_tty(lines)
        os._exit(status)

    timer = threading.Timer(CLEANUP_S, end)
    timer.daemon = True
    timer.start()


def _write_to_tty(lines: list[str]) -> None:
    """Restore the terminal and write `lines` without waiting for a terminal that is stuck."""
    text = _SCREEN_OFF + "".join(f"\rquantchat: {one_line(line)}\r\n" for line in lines)
    with contextlib.suppress(OSError):  # the terminal may be closed
        terminal = os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        os.write(terminal, text.encode("utf-8", "replace"))
