"""Record a session of the demo as an asciicast, to be played with `asciinema play`.

`python benchmarks/recording.py [FILE]` can be run from any folder (FILE is by default demo.cast in
the current folder). It runs `quantchat demo` in a pseudo-terminal, with the checkpoints of the
user's cache folder; missing ones are built first. The format is asciicast v2: a header line, then
one line [seconds, "o", text] for each piece of output (asciinema's documentation, "asciicast v2").
"""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyte

COLUMNS, ROWS = 120, 40
LIMIT_S = 1800.0
"""Time limit for each step. It is long because the first start builds the checkpoints."""
PAUSE_S = 2.0
"""How long the screen stays before the next key."""


class Step(NamedTuple):
    """Wait until the screen shows the text `shows` `times` times, then type `keys`."""

    shows: str
    times: int
    keys: str


DEMO = (
    Step("● ready", 2, "Why is the sky blue? Answer in two sentences.\r"),
    Step(" tokens · ", 2, "\x11"),  # the figures that stand under both answers at their end
    Step("", 0, "\x11"),  # a second ^Q quits without saving
)


def record(
    command: Sequence[str],
    steps: Sequence[Step],
    columns: int = COLUMNS,
    rows: int = ROWS,
    title: str = "",
) -> list[str]:
    """Run `command` in a terminal, act on `steps`; return the lines of the asciicast.

    The recording names the command `title`, without paths of this machine. Raises RuntimeError if a
    step is not reached in `LIMIT_S`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    header = {
        "version": 2,
        "width": columns,
        "height": rows,
        "timestamp": int(time.time()),
        "title": title,
        "env": {"TERM": env["TERM"]},
    }
    lines = [json.dumps(header)]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
    )
    os.close(theirs)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    started = step_began = time.monotonic()
    screen = pyte.Screen(columns, rows)
    stream, waiting = pyte.Stream(screen), list(steps)
    try:
        while True:
            if waiting and _text(screen).count(waiting[0].shows) >= waiting[0].times:
                stream.feed(_cleaned(_read_on(ours, PAUSE_S, decoder, lines, started)))
                os.write(ours, waiting.pop(0).keys.encode())
                step_began = time.monotonic()
            if waiting and time.monotonic() - step_began > LIMIT_S:
                raise RuntimeError(f"never shown: {waiting[0].shows}")
            text = _read(ours, decoder)
            if text is None:
                return lines
            stream.feed(_cleaned(text))
            _add(lines, started, text)
    finally:
        os.close(ours)  # hangs up: the program ends
        process.wait()


def _read_on(
    fd: int, seconds: float, decoder: codecs.IncrementalDecoder, lines: list[str], started: float
) -> str:
    """Record for `seconds` s; return what the program has written meanwhile."""
    end, written = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        text = _read(fd, decoder) or ""
        written += text
        _add(lines, started, text)
    return written


def _read(fd: int, decoder: codecs.IncrementalDecoder) -> str | None:
    """Return what the program has written, "" if nothing came; None once it has ended."""
    ready, _, _ = select.select([fd], [], [], 0.05)
    if not ready:
        return ""
    try:
        data = os.read(fd, 65536)
    except OSError:  # EIO: the other end is closed
        return None
    return decoder.decode(data) if data else None


_UNKNOWN = re.compile(r"\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1b\[\?[0-9;]*\$p|\x1b_[^\x1b]*\x1b\\\\")
"""Queries to a terminal that pyte's parser does not know: it would show their letters as text."""


def _cleaned(text: str) -> str:
    return _UNKNOWN.sub("", text)


def _text(screen: pyte.Screen) -> str:
    columns = range(screen.columns)
    return "\n".join(
        "".join(screen.buffer[y][x].data for x in columns) for y in range(screen.lines)
    )


def _add(lines: list[str], started: float, text: str) -> None:
    if text:
        lines.append(
            json.dumps([round(time.monotonic() - started, 3), "o", text], ensure_ascii=False)
        )


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "demo.cast")
    with tempfile.TemporaryDirectory() as folder:
        # Without the user's preferences, prompts and recovered conversations.
        os.environ |= {"QUANTCHAT_CONFIG": folder, "QUANTCHAT_SNAPSHOTS": folder}
        # --low-bandwidth draws the screen once a second, which keeps the file small.
        command = [sys.executable, "-m", "quantchat", "--low-bandwidth", "demo"]
        cast = record(command, DEMO, title="quantchat --low-bandwidth demo")
    target.write_text("\n".join(cast) + "\n", encoding="utf-8")
    print(f"wrote {target}")
