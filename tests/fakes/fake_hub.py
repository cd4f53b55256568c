"""A model hub on this machine: the part of the Hugging Face hub that serves files."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from quantchat.files import sha256

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serving(
    folder: Path, kind: str = "", *, gated: bool = False, login_page: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """Serve the repositories `org/name` below `folder`; the address, and what was asked for.

    `kind` is what stands before their names, `datasets/` for those of data. `gated`: nothing is
    given to anybody. `login_page`: each answer is a page, as of a network that wants a login.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def _answer(self, with_body: bool) -> None:
            asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
            listing = re.fullmatch(
                r"/api/models/([\w.-]+/[\w.-]+)(?:/(revision|tree)/[\w.-]+)?",
                self.path.partition("?")[0],
            )
            if login_page:
                self._show(b"<html>Sign in to this network</html>", with_body)
                return
            if gated:
                self._refuse(401, "GatedRepo")
                return
            if listing and (folder / listing[1]).is_dir():
                self._list(folder / listing[1], listing[1], whole=listing[2] != "tree")
                return
            place = rf"/{kind}([\w.-]+/[\w.-]+)/resolve/[\w.-]+/([\w.-]+)"
            found = re.fullmatch(place, self.path)
            file = folder / found[1] / found[2] if found else None
            if file is None or not file.is_file():
                self._refuse(404, "EntryNotFound")
                return
            body = file.read_bytes()
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if part:
                body = body[int(part[1]) : int(part[2]) + 1]
            self.send_response(206 if part else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{sha256(file)}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def _show(self, page: bytes, with_body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            if with_body:
                self.wfile.write(page)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", f"it says {code}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _list(self, place: Path, name: str, *, whole: bool) -> None:
            files = [file for file in sorted(place.rglob("*")) if file.is_file()]
            paths = [file.relative_to(place).as_posix() for file in files]
            told: Any = [
                {"type": "file", "path": path, "size": file.stat().st_size, "oid": COMMIT}
                for path, file in zip(paths, files, strict=True)
            ]
            if whole:
                siblings = [
                    {"rfilename": path, "size": file.stat().st_size, "blobId": sha256(file)}
                    for path, file in zip(paths, files, strict=True)
                ]
                told = {"id": name, "sha": COMMIT, "siblings": siblings}
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make huggingface_hub use the hub at `address`."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
