"""Runs the user's pip so that it ends when this process ends, and explains why pip failed.

pip uses the index, proxy, certificates and cache that the user has configured.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from quantchat.host.process_group import kill_all, watchdog_pipe, watched_command
from quantchat.text import one_line
from quantchat.wire.messages import Failed, FailureKind

PIP = (sys.executable, "-m", "pip")

QUIET = ("--no-input", "--disable-pip-version-check", "--progress-bar=off")
"""Options that keep pip from asking questions and from drawing a progress bar."""

POLL_S = 0.25
"""Seconds between two calls of `poll`."""


async def run(command: Sequence[str], scratch: Path, log: Path, poll: Callable[[], None]) -> int:
    """Run `command` in its own session, and return its exit status.

    The command ends when this process does. Its stderr is appended to `log`. `scratch` is the
    command's folder for temporary files, in which the caller can watch a download grow. Calls
    `poll` every `POLL_S`. Cancelling ends the command and all processes it started. Raises OSError.
    """
    with watchdog_pipe() as pipe, log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *watched_command(command),
            stdin=pipe,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        ended = asyncio.ensure_future(process.wait())
        try:
            while not ended.done():
                poll()
                await asyncio.wait([ended], timeout=POLL_S)
            return ended.result()
        finally:
            kill_all(process.pid)
            await asyncio.shield(ended)


_NETWORK = "check the network and the proxy, then try again; finished downloads are kept"
_INDEX = "check which index, proxy and credentials pip uses (`pip config list`)"

_REASONS: list[tuple[str, FailureKind, str, str]] = [
    (
        r"No module named pip",
        "missing_library",
        "pip is not installed for this Python",
        "install it: python -m ensurepip",
    ),
    (
        r"No space left on device",
        "no_space",
        "the disk is full",
        "free disk space, or set QUANTCHAT_CACHE to a folder on another disk",
    ),
    (
        r"ProxyError|Tunnel connection failed",
        "fetch_failed",
        "the proxy does not let pip through",
        _INDEX,
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "fetch_failed",
        "the package index's certificate is not trusted",
        "give pip your CA bundle (PIP_CERT, or `pip config set global.cert FILE`)",
    ),
    (
        r"\b(?:401|403|407) Client Error|HTTP error (?:401|403|407)",
        "fetch_failed",
        "the package index refused the download",
        _INDEX,
    ),
    (
        r"IncompleteRead|incomplete-download|located at .* is invalid|has an invalid wheel",
        "fetch_failed",
        "the download was cut short or is damaged",
        _NETWORK,
    ),
    (
        r"NewConnectionError|NameResolutionError|Failed to establish a new connection"
        r"|Network is unreachable|[Tt]imed? ?out|Connection (?:refused|broken|reset|aborted)"
        r"|\b5\d\d Server Error",
        "fetch_failed",
        "the package index cannot be reached",
        _NETWORK,
    ),
    (
        r"No matching distribution found",
        "fetch_failed",
        "the package index that pip uses does not have this package",
        "give pip another index (PIP_INDEX_URL), then try again",
    ),
]
"""Patterns in pip's log, the most specific first, with the failure's kind, reason and hint."""


def failure(what: str, status: int, log: Path) -> Failed:
    """Return why pip failed at `what`, from its exit status `status` and its `log`."""
    text = log.read_text(encoding="utf-8", errors="replace")
    for pattern, kind, reason, hint in _REASONS:
        if re.search(pattern, text):
            return Failed(kind, f"{what}: {reason}", f"{hint}; see pip's log {log}")
    errors = re.findall(r"ERROR: (.+)", text)
    reason = one_line(errors[-1]) if errors else f"pip ended with status {status}"
    return Failed("fetch_failed", f"{what}: {reason}", f"see pip's log {log}, then try again")
