"""A real sshd on loopback, with its own temporary host key and user key."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fakes.waiting import PATIENCE_S

SEPARATION = Path("/run/sshd")
"""Where sshd, run as root, wants an empty folder; its service makes it at the machine's start."""


@dataclass(frozen=True)
class SshServer:
    """A running server: how to log in, and the processes that it started."""

    process: subprocess.Popen[bytes]
    client: list[str]
    """The command that logs in, but for what it is to run there."""
    log: Path

    def sessions(self) -> list[psutil.Process]:
        """The server's processes for connections."""
        return psutil.Process(self.process.pid).children()

    def running(self, word: str) -> list[psutil.Process]:
        """Return logged-in processes with `word` in their command line, and their descendants."""
        found = []
        for session in self.sessions():
            for process in session.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if any(word in part for part in process.cmdline()):
                        found.append(process)
        return found


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """Run one below `folder` until the context is left; skips the test where it cannot run."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    programs = {name: shutil.which(name, path=path) for name in ("sshd", "ssh", "ssh-keygen")}
    if missing := [name for name, found in programs.items() if found is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: openssh-server)")
    sshd, ssh, keygen = (str(found) for found in programs.values())
    if os.geteuid() == 0 and not SEPARATION.exists():
        SEPARATION.mkdir(mode=0o755)
    for name in ("host", "user"):
        key = str(folder / name)
        make = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", "throw-away", "-f", key]
        subprocess.run(make, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copy(folder / "user.pub", folder / "authorized")
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "PrintMotd": "no",
    }
    (folder / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))
    log = folder / "sshd.log"
    process = subprocess.Popen([sshd, "-D", "-f", folder / "sshd_config", "-E", log])
    client = [
        *(ssh, "-F", "none", "-p", str(port), "-l", getpass.getuser(), "-i", str(folder / "user")),
        *("-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "IdentitiesOnly=yes"),
        *("-o", "BatchMode=yes"),
    ]
    try:
        _wait_until_it_answers(process, client, log)
        yield SshServer(process, [*client, "-tt", "127.0.0.1"], log)
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], client: list[str], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        tried = subprocess.run([*client, "127.0.0.1", "true"], capture_output=True, check=False)
        if tried.returncode == 0:
            return
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.skip(f"no login through sshd: {tried.stderr!r} {log.read_text()[-500:]}")
        time.sleep(0.05)
