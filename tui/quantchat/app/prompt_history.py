"""The prompts of earlier sessions: a file of JSON lines in the folder of the logs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from quantchat import paths
from quantchat.daemon_thread import in_daemon_thread, to_daemon_thread
from quantchat.files import read_tail, write_whole

MAX_RECALLED = 1000
"""How many prompts are read: the newest ones."""
_MAX_BYTES = 4 * 2**20
"""A larger file is cut to its newest prompts when it is read."""


class PromptHistory:
    """Remembers prompts in `file`, by default the user's history. Only the user can read it.

    If the disk hangs or is full, quantchat goes on without a history.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file

    async def read(self) -> list[str]:
        """Return the newest prompts, the oldest first; empty if the file cannot be read."""
        return await to_daemon_thread(self._read, "prompt history")

    def add(self, prompt: str) -> None:
        """Append `prompt` to the file without waiting for the disk."""
        in_daemon_thread(lambda: self._append(prompt), "prompt history")

    def _path(self) -> Path:
        return self._file or paths.logs_dir() / "prompts.jsonl"

    def _read(self) -> list[str]:
        with contextlib.suppress(OSError):
            file = self._path()
            prompts = _prompts(read_tail(file, _MAX_BYTES).splitlines())[-MAX_RECALLED:]
            if file.stat().st_size > _MAX_BYTES:
                write_whole(file, "".join(map(_line, prompts)).encode())
            return prompts
        return []

    def _append(self, prompt: str) -> None:
        with contextlib.suppress(OSError):
            file = self._path()
            paths.private(file.parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            with os.fdopen(os.open(file, flags, 0o600), "ab") as stream:
                stream.write(_line(prompt).encode())  # one write, so that sessions do not mix


def _line(prompt: str) -> str:
    return json.dumps(prompt) + "\n"  # ASCII: no lone surrogate, no control character


def _prompts(lines: Iterable[str]) -> list[str]:
    """Return the prompts in `lines`, without broken lines: the first one may be cut."""
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            prompt = json.loads(line)
            if isinstance(prompt, str) and prompt.strip():
                found.append(prompt)
    return found
