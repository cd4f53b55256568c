"""A real pseudo-terminal that runs a program, with a screen (pyte) that can be read."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte

from fakes.waiting import PATIENCE_S

# What Textual asks of a terminal beyond what pyte's parser knows: CSI with a private prefix and
# final letters pyte gives another meaning (kitty keyboard `CSI > 1 u`, XTVERSION `CSI > q`).
_UNKNOWN = re.compile(rb"\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1b\[\?[0-9;]*\$p|\x1b_[^\x1b]*\x1b\\")


LOADING_S = 300.0
"""How long is waited: two real models that load on busy cores were seen to take two minutes."""


class Terminal:
    """Runs `command` under a pseudo-terminal of `columns` x `rows` cells."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 120,
        rows: int = 40,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.received = bytearray()
        self._fd, child = pty.openpty()
        self._size(columns, rows)
        self.process = subprocess.Popen(
            list(command),
            stdin=child,
            stdout=child,
            stderr=child,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(env or {})},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(child)

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal, as a user does who drags the window's corner."""
        self.screen.resize(rows, columns)
        self._size(columns, rows)
        os.killpg(self.process.pid, signal.SIGWINCH)

    def type(self, text: str) -> None:
        """Type `text`, which may have control characters."""
        os.write(self._fd, text.encode())

    def read(self, timeout_s: float = 0.05) -> bool:
        """Read what the program wrote; return False once it has closed the terminal."""
        ready, _, _ = select.select([self._fd], [], [], timeout_s)
        if not ready:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: the other end is gone
            return False
        self.received += data
        self._stream.feed(_UNKNOWN.sub(b"", data))
        return bool(data)

    @property
    def lines(self) -> list[str]:
        """The screen's rows as text."""
        # `Screen.display` stumbles over half of a wide character, and over joined ones.
        rows, columns = range(self.screen.lines), range(self.screen.columns)
        return ["".join(self.screen.buffer[y][x].data for x in columns) for y in rows]

    @property
    def text(self) -> str:
        """The screen as text."""
        return "\n".join(self.lines)

    def wait_for(
        self, condition: Callable[[], object], what: str, most_s: float = LOADING_S
    ) -> None:
        """Read until `condition` is true; fail with the screen's text if it never is."""
        deadline = time.monotonic() + most_s
        while not condition():
            alive = self.read()
            if not alive and not condition():
                raise AssertionError(f"the program ended before {what}:\n{self.text}")
            assert time.monotonic() < deadline, f"waited in vain for {what}:\n{self.text}"

    def wait_for_text(self, *texts: str, most_s: float = LOADING_S) -> None:
        """Read until the screen shows each of `texts`."""
        self.wait_for(lambda: all(text in self.text for text in texts), f"{texts}", most_s)

    def wait_for_match(self, pattern: str, most_s: float = LOADING_S) -> None:
        """Read until `pattern` matches something on the screen.

        For what streams by: one paragraph may have come and gone while nobody read.
        """
        self.wait_for(lambda: re.search(pattern, self.text), f"a match of {pattern}", most_s)

    def wait_for_exit(self, most_s: float = PATIENCE_S) -> int:
        """Read until the program has ended and all its output was read; return its exit status."""
        deadline = time.monotonic() + most_s
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < deadline, f"it did not end:\n{self.text}"
        # Its last words may have come after the last look, and before its end.
        while select.select([self._fd], [], [], 0)[0] and self.read():
            pass
        return self.process.returncode

    def hang_up(self) -> None:
        """Close the terminal, as a closed window or a dropped connection does."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, self._fd)
        os.close(nowhere)

    def close(self) -> None:
        """Close the terminal, and kill processes that are left."""
        os.close(self._fd)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
