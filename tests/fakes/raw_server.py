"""A loopback server that answers each request with bytes that a test chooses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request, and how to answer it."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    write: Callable[[bytes], None]
    """Writes raw bytes of the response. Raises OSError once the client has hung up."""

    def whole(self, body: bytes, *headers: str, status: int = 200) -> None:
        """Answer with `body`."""
        close = ("Connection: close", f"Content-Length: {len(body)}")
        lines = [f"HTTP/1.1 {status} X", *close, *headers, "", ""]
        self.write("\r\n".join(lines).encode() + body)

    def json(self, body: Any, *, status: int = 200) -> None:
        """Answer with `body` as JSON."""
        self.whole(json.dumps(body).encode(), "Content-Type: application/json", status=status)

    def begin(self) -> None:
        """Start a stream that ends with the connection."""
        self.write(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n")

    def say(self, text: str = "", reason: str | None = None, **more: Any) -> None:
        """Stream one chunk of a chat."""
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
        chunk = {"id": "1", "object": "chat.completion.chunk", "choices": [choice], **more}
        self.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def answer(self, *pieces: str, **usage: int) -> None:
        """Stream a whole chat."""
        self.begin()
        for piece in pieces or ("It is ", "Paris."):
            self.say(piece)
        self.say(reason="stop")
        if usage:
            self.say(usage=usage)
        self.write(b"data: [DONE]\n\n")


class RawServer(ThreadingHTTPServer):
    """Calls `answers` with each request; lists its models by itself."""

    daemon_threads = True

    def __init__(self, answers: Callable[[Asked], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.asked: list[Asked] = []
        self.lists_models = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: RawServer

    def log_message(self, *_: Any) -> None:
        pass

    def _do(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        headers = {key.lower(): value for key, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body, self._write)
        self.server.asked.append(asked)
        self.close_connection = True
        try:
            if self.server.lists_models and self.path.partition("?")[0].endswith("/models"):
                asked.json({"data": [{"id": "tiny"}]})
            else:
                self.server.answers(asked)
        except OSError:
            pass

    do_GET = do_POST = _do  # noqa: N815 - the names are the library's

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()


@contextmanager
def raw_server(answers: Callable[[Asked], None]) -> Iterator[RawServer]:
    """Run a server that answers by `answers` within this context."""
    with RawServer(answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
