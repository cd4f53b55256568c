"""A server that the worker starts for its variant, and that ends when the worker ends.

The server is a child process of the worker, in the worker's POSIX session. When the worker ends,
for whatever reason, all processes of the session are ended (`parent_watchdog`), and so are the
server and its processes. The server's output goes to the worker's log.
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
"""The part of a log line before its message, as in vLLM, SGLang and uvicorn: process, level, time,
and file and line of the code."""
_ERROR = re.compile(r"\b\w*(Error|Exception): |^Value error, ")
"""Matches lines in which Python or pydantic report an error."""
_REFERS_ABOVE = re.compile(r"See (root cause|stack trace) ?\(?above", re.IGNORECASE)
"""Matches a line of vLLM's main process that only refers to the error of another process."""
_MOST_LINES = 100
"""Number of lines at the end of the output that are searched for an error."""
_SHOWN_CHARACTERS = 120
"""Most characters of a line of output that are shown while the server starts."""

POLL_S = 0.1
"""Seconds between two checks whether the server is ready."""
_CONNECTION_LOST = ("server_unreachable", "stream_cut")
"""The kinds of failures that requests may report because the server has ended."""
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
    """Name of the Python environment with the server's programs; None if there is none."""
    path: str | None = None
    """The folder of the programs in this environment, which is put first on PATH; None without
    `env`."""


def with_port(options: Mapping[str, object]) -> dict[str, object]:
    """Return `options` with each `{port}` in a text replaced by the number of a free TCP port."""
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
    """Return the address of the list of models below `base_url`, with the query of `base_url`."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/models", fragment=""))


def _program(command: Sequence[str]) -> str:
    """Return the file name of the program that `command` runs.

    Words of the form `env NAME=VALUE` before the program are skipped.
    """
    words = [one for one in command[1:] if "=" not in one] if command[0] == "env" else command
    return Path((words or command)[0]).name


class StartedServer:
    """Starts the program that `server` describes, without a shell.

    `base_url` is the address of the server's protocol. One thread reads the server's output,
    another waits for its end; if one of them fails, `failed` is called with the exception. Raises
    Refused if the program cannot be started.
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
        """The last line of output that was reported."""
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        """The last lines of the server's output, which show its progress and why it ended."""
        # The programs of quantchat's own Python environment come last on PATH, so that they are
        # found even if the environment is not activated.
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
        # Use no proxy for a server that the worker has started.
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
        """Wait for a moment, because the server still loads its model.

        Call this between two requests. `message` is the server's response to the last request;
        `tell` is called with lines of output. Raises Refused after the time limit.
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
        """Return whether `error` says that the connection was lost, and this server has ended."""
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
        self._log.join(1.0)  # until the last lines are read, which give the reason
        status = self._process.returncode
        if status < 0:  # ended by a signal, so it has printed no reason
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
        """Return the last line of the output that names an error, or else the last line."""
        lines = list(reversed(self._lines))
        errors = (one for one in lines if _ERROR.search(one) and not _REFERS_ABOVE.search(one))
        return next(errors, lines[0] if lines else "")
