"""A server that the worker starts for its variant, and that ends when the worker ends.

The server is a child of the worker, in the worker's session. When the worker ends, for whatever
reason, the whole session is ended, and so the server and its processes. Its output goes to the
worker's log.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from quantchat.wire.messages import FailureKind
from quantchat.wire.redaction import redacted
from quantchat.worker import threads
from quantchat.worker.failures import Refused

_LINE_PREFIX = re.compile(
    r"(\([^()]*pid=\d+\) )?((DEBUG|INFO|WARNING|ERROR):? +)?([\d:., -]+ )?(\[[^\]]*\] +)?"
)
"""The part of a log line before its text, as in vLLM, SGLang and uvicorn: process, level, time and
place."""
_ERROR = re.compile(r"\b\w*(Error|Exception): |^Value error, ")
"""Error lines of Python and pydantic."""
_REFERS_ABOVE = re.compile(r"See (root cause|stack trace) ?\(?above", re.IGNORECASE)
"""A line of vLLM's main process that refers to the error of another process."""
_MOST_LINES = 100
"""Number of last lines that are searched for an error."""
_SHOWN_CHARACTERS = 120
"""Characters of a line shown while the server starts."""

POLL_S = 0.1
"""Seconds between two checks whether the server is ready."""
_CONNECTION_LOST = ("server_unreachable", "stream_cut")
"""Kinds of failures that the end of the server may cause."""
_END_WAIT_S = 0.5
"""Seconds to wait, after a connection was lost, for the server's process to end."""


@dataclass(frozen=True)
class ServerCommand:
    """How to start a server: the table `[variants.server]` of a profile."""

    command: list[str]
    """The program and its arguments."""
    timeout_s: float
    """Longest time until the server is ready, in seconds."""
    ready: str | None = None
    """An address that responds once the server is ready; None: that of its list of models."""
    env: str | None = None
    """Name of the Python environment with the server's programs."""
    path: str | None = None
    """The folder of these programs, which comes first on PATH; None without `env`."""


def with_port(options: Mapping[str, object]) -> dict[str, object]:
    """Return `options` with each `{port}` replaced by the number of a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def put(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{port}", port)
        if isinstance(value, dict):
            return {key: put(inner) for key, inner in value.items()}
        return [put(inner) for inner in value] if isinstance(value, list) else value

    return {key: put(value) for key, value in options.items()}


def _models_at(base_url: str) -> str:
    """Return the address of the list of models below `base_url`, whose query is kept."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/models", fragment=""))


def _program(command: Sequence[str]) -> str:
    """Return the name of the program that `command` runs, also after `env NAME=VALUE`."""
    words = [one for one in command[1:] if "=" not in one] if command[0] == "env" else command
    return Path((words or command)[0]).name


class StartedServer:
    """Runs the program of `server` without a shell.

    `failed` is called with any exception of the threads that read the server's output and wait for
    its end. Raises Refused if the program cannot be started.
    """

    def __init__(
        self, server: ServerCommand, base_url: str, failed: Callable[[BaseException], None]
    ) -> None:
        self._command = server.command
        self._name = f"the server ({_program(self._command)})"
        self._ready = server.ready or _models_at(base_url)
        self._timeout_s = server.timeout_s
        self._deadline = time.monotonic() + self._timeout_s
        self._shown = ""
        """The last line that was reported."""
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        """The server's last lines, which show its progress and why it ended."""
        # The scripts of this Python environment come last on PATH, even if it is not activated.
        folders = [server.path, os.environ.get("PATH"), str(Path(sys.executable).parent)]
        environment = {**os.environ, "PATH": os.pathsep.join(filter(None, folders))}
        program, *arguments = self._command
        try:
            self._process = subprocess.Popen(
                [shutil.which(program, path=environment["PATH"]) or program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise Refused(
                "missing_library",
                f"cannot start {program}: {error.strerror or error}",
                "install it, or name its path in [variants.server] command",
            ) from error
        self._failed = failed
        self._log = threads.start("server-log", self._read, failed)

    def wait(self, tell: Callable[[str], None]) -> None:
        """Return once the server is ready; call `tell` with lines of its output. Raises Refused."""
        # No proxy for our own server.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while (left := self._deadline - time.monotonic()) > 0:
            if self._process.poll() is not None:
                raise Refused(*self._end("before it was ready"))
            self._report_output(tell)
            try:
                with opener.open(self._ready, timeout=max(POLL_S, left)):
                    return
            except urllib.error.HTTPError as error:
                if error.code in (401, 403):  # the server answers, and requires a key
                    return
            except (OSError, http.client.HTTPException):  # it does not listen or answer yet
                pass
            time.sleep(POLL_S)
        raise self._not_ready(f"at {self._ready} ")

    def wait_longer(self, message: str, tell: Callable[[str], None]) -> None:
        """Wait before the next request to a server that still loads; `message` is its answer.

        Raises Refused after the time limit.
        """
        if time.monotonic() >= self._deadline:
            raise self._not_ready("", f": {message}")
        self._report_output(tell)
        time.sleep(POLL_S)

    def _report_output(self, tell: Callable[[str], None]) -> None:
        if self._lines and self._lines[-1] != self._shown:
            self._shown = self._lines[-1]
            tell(redacted(self._shown)[:_SHOWN_CHARACTERS])

    def _not_ready(self, where: str, why: str = "") -> Refused:
        return Refused(
            "server_silent",
            f"{self._name} was not ready {where}within {self._timeout_s:g} s{why}",
            "look at the worker's log, or raise timeout_s in [variants.server]",
        )

    def explains(self, error: BaseException) -> bool:
        """Return whether `error` is a lost connection, and this server has ended."""
        if not isinstance(error, Refused) or error.failure.kind not in _CONNECTION_LOST:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_WAIT_S)
        return self._process.returncode is not None

    def watch(self, ended: Callable[[FailureKind, str, str], None]) -> None:
        """Call `ended(kind, reason, hint)` from a thread when the server ends."""

        def wait() -> None:
            self._process.wait()
            ended(*self._end("by itself"))

        threads.start("server-watch", wait, self._failed)

    def _end(self, when: str) -> tuple[FailureKind, str, str]:
        self._log.join(1.0)  # read the last lines, which give the reason
        status = self._process.returncode
        if status < 0:  # a killed process prints no reason
            what = f"was ended by signal {-status}"
        else:
            text = self._error_line()
            why = f": {text[:200]}" if text else ""
            what = f"ended with status {status} {when}{why}"
        return (
            "server_ended",
            f"{self._name} {what}",
            "look at the server's output in the worker's log, then retry",
        )

    def _read(self) -> None:
        for line in self._process.stdout or ():
            # A full disk must not stop this loop, or the server would block on its output. Write to
            # `sys.stderr`, not to its file descriptor, because the stream redacts secrets.
            with contextlib.suppress(ValueError, OSError):
                sys.stderr.write(line)
                sys.stderr.flush()
            text = _LINE_PREFIX.sub("", " ".join(line.split()), count=1)
            if text:
                self._lines.append(text)

    def _error_line(self) -> str:
        """Return the last line that names an error, or else the last line."""
        lines = list(reversed(self._lines))
        errors = (one for one in lines if _ERROR.search(one) and not _REFERS_ABOVE.search(one))
        return next(errors, lines[0] if lines else "")
