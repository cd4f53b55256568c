"""File systems mounted for a test: one that is full, and one that never answers.

Only root may mount, and not in each container: `MountRefused` then says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


class MountRefused(Exception):
    """This process may not mount a file system."""


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount 64 KiB of memory as the folder `place`. Raises MountRefused."""
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(place)],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise MountRefused(f"a tmpfs cannot be mounted: {error}") from error
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    """Write into `disk` until it is full."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb") as file:
        while True:
            os.write(file.fileno(), bytes(512))


@contextlib.contextmanager
def hung_share(place: Path) -> Iterator[Path]:
    """Mount a share that never answers over the folder `place`. Raises MountRefused.

    It is a FUSE file system whose server reads no request, as a network share whose server is
    gone: each access waits until the process is killed. At the end they fail with ENOTCONN.
    """
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        raise MountRefused(f"there is no FUSE: {error}") from error
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        if libc.mount(b"hung", os.fsencode(place), b"fuse", 0, options.encode()):
            raise MountRefused(f"FUSE cannot be mounted: {os.strerror(ctypes.get_errno())}")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
    finally:
        os.close(device)
