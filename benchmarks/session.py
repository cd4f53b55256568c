"""Runs the real screen in a pseudo-terminal whose reader is fast, slow or stops reading.

The benchmarks of the screen use this module. The reader draws nothing: it only counts and searches
bytes, so that it takes hardly any processor time from the program that is measured.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
SYNTHETIC = (sys.executable, str(TESTS / "fakes" / "run_synthetic.py"))
ENTER, QUIT, NEW_CHAT, SAVE = "\r", "\x11\x11", "\x0e", "\x13"
SIZE = (120, 40)
_TAIL = 200_000
"""Number of last bytes that are searched; earlier bytes are only counted."""
_BREATHS = 20
"""Reads per second at a limited pace."""


class Session:
    """Runs `command` in a pseudo-terminal of its own."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        self.pace: int | None = None
        """Bytes per second to read; None reads as fast as they come, 0 reads nothing."""
        self.received = 0
        """Bytes received so far."""
        self._tail = b""
        self._seen = threading.Condition()
        self._fd, child = pty.openpty()
        self._size(*SIZE)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SSH_", "TMUX", "STY"))}
        path = os.pathsep.join([str(HERE.parent / "tui"), str(TESTS)])
        self.process = subprocess.Popen(
            list(command),
            stdin=child,
            stdout=child,
            stderr=child,
            env={
                **kept,
                "PYTHONPATH": path,
                "TERM": "xterm-256color",
                "COLORTERM": "truecolor",
                **(env or {}),
            },
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(child)
        self.ps = psutil.Process(self.process.pid)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            pace = self.pace
            if pace == 0:
                time.sleep(1 / _BREATHS)
                continue
            try:
                data = os.read(self._fd, 65536 if pace is None else max(1, pace // _BREATHS))
            except OSError:
                return
            with self._seen:
                self.received += len(data)
                self._tail = (self._tail + data)[-_TAIL:]
                self._seen.notify_all()
            if pace is not None:
                time.sleep(1 / _BREATHS)

    def forget(self) -> None:
        """From now on, search only new bytes."""
        with self._seen:
            self._tail = b""

    def wait_for(self, text: str, times: int = 1, most_s: float = 120) -> float:
        """Wait until `text` was written `times` times; return the time (`time.perf_counter()`).

        Raises TimeoutError after `most_s` seconds.
        """
        wanted = text.encode()
        with self._seen:
            if not self._seen.wait_for(lambda: self._tail.count(wanted) >= times, most_s):
                raise TimeoutError(f"{text!r} never came: …{self._tail[-2000:]!r}")
        return time.perf_counter()

    def type(self, text: str) -> None:
        """Type `text`, which may contain control characters."""
        os.write(self._fd, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal, as if a user resized its window."""
        self._size(columns, rows)
        os.killpg(self.process.pid, signal.SIGWINCH)

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def cpu_s(self) -> float:
        """Return the processor seconds of the screen's process so far."""
        times = self.ps.cpu_times()
        return float(times.user + times.system)

    def started_cpu_s(self) -> float:
        """Return the processor seconds so far of the descendants of the screen's process."""
        times = [child.cpu_times() for child in self.ps.children(recursive=True)]
        return float(sum(one.user + one.system for one in times))

    def resident_mb(self) -> float:
        """Return the resident memory of the screen's process, in MB of 10^6 bytes."""
        return round(self.ps.memory_info().rss / 1e6, 1)

    def end(self, most_s: float = 60) -> int:
        """Quit and wait for the end; return the exit status."""
        self.pace = None
        self.type(QUIT)
        try:
            return self.process.wait(most_s)
        finally:
            self.close()

    def close(self) -> None:
        """Kill the program if it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Synthetic(Session):
    """The screen with imitated models; both sides are ready when the constructor returns."""

    def __init__(self, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="quantchat-"))
        logs = {"QUANTCHAT_LOGS": str(self.folder / "logs")}
        super().__init__([*SYNTHETIC, str(self.folder), *options], env={**logs, **(env or {})})
        self.wait_for("● ready", times=2)

    def ask(self, kind: str, rate: int, count: int) -> None:
        """Let both sides answer with `count` tokens of `kind` at `rate` tokens per second."""
        self.type(f"{kind} {rate} {count}{ENTER}")

    def report(self) -> list[dict[str, Any]]:
        """Quit; return for each answer whether it was complete and in order, and its timing."""
        self.end()
        found = json.loads((self.folder / "report.json").read_text())
        return list(found["answers"])


KEYS = "БГДЖЗИЛПФЦЧШЩЭЮЯ"
"""Letters that occur in no text and no widget here, so that their echo is found in the bytes."""


def key_latencies_ms(session: Session, seconds: float) -> list[float]:
    """Type letters for `seconds`; return the times from each key to its echo, in ms.

    The pauses are random, because keys at regular times could always hit the same moment between
    two frames.
    """
    found: list[float] = []
    uneven = random.Random(0)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        key = KEYS[len(found) % len(KEYS)]
        session.forget()
        began = time.perf_counter()
        session.type(key)
        found.append((session.wait_for(key, most_s=30) - began) * 1000)
        if len(found) % 12 == 0:  # keep the prompt on one line
            session.type("\x7f" * 12)
        time.sleep(uneven.uniform(0.05, 0.25))
    session.type("\x7f" * (len(found) % 12))
    return found


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the percentile of `values`: one of the values, without interpolation."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def keep(name: str, result: dict[str, Any], *, indent: int | None = 2) -> None:
    """Write `result` to `benchmarks/results/<name>.json`, and print the path.

    With `indent=None` the file has one line, for results with many samples.
    """
    target = HERE / "results" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(
        json.dumps(result, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(f"wrote {target}")


def kept(name: str) -> dict[str, Any]:
    """Return the result in `benchmarks/results/<name>.json`."""
    text = (HERE / "results" / f"{name}.json").read_text(encoding="utf-8")
    result: dict[str, Any] = json.loads(text)
    return result
