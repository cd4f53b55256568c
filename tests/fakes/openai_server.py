"""A loopback server that speaks OpenAI's streaming protocol, correctly or with a chosen fault."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHUNKS = ("The ", "capital is", " Paris.")
TOKENS = 7
"""What the server counts: more than there are chunks."""
BUILD = "fake-0.1-abc"


class FakeServer(ThreadingHTTPServer):
    """A server that answers according to `behaviour`.

    - ok: it streams an answer.
    - uncounted: it refuses `stream_options`.
    - silent on usage: it sends no usage.
    - counts the end: its usage includes the end-of-sequence token.
    - strict: it refuses `repeat_penalty`, a parameter that is not OpenAI's.
    - fickle: each answer differs.
    - wordless: the answer has no text.
    - mute: it never answers.
    - 401, 404, 429: it answers with that status.
    - full: it refuses with the text of `full`.
    - breaks off: its stream has an error message.
    - cut: it closes the connection within the stream.
    - out of room: it ends an answer before the requested length.
    - endless: it streams until `behaviour` changes.
    - TGI: it refuses a `top_p` of 1 within the stream, and has its own name for the end of a
      completion.
    """

    daemon_threads = True
    behaviour = "ok"
    full = ""
    listed: str | None = None
    """Answer to the request for its models, in place of a list."""
    recorded: Callable[[dict[str, Any]], str | tuple[int, dict[str, Any]]] | None = None
    """Recorded answers to requests: the text of the stream, or a status and a body."""
    native: Mapping[str, Any] = {}
    """Answers outside OpenAI's protocol, by path."""
    held = False
    """Whether the recorded stream stays open at its end."""
    counts_along = False
    """Whether each chunk has the number of tokens so far, if a request asks for it.

    One token a chunk; two in an endless stream.
    """
    wordless_tokens = 0
    """Number of tokens without text at the end of an answer, each in a chunk of its own."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.asked: list[tuple[str, int]] = []
        """Path and arrival time of each request, by the workers' clock."""
        self.keys: list[str] = []
        self._connections: list[socket.socket] = []
        self.hung_up = threading.Event()
        """Set when a client closed its stream before the end."""

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        """Close the server together with its connections, as the end of its process would."""
        super().server_close()
        for one in self._connections:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, time.perf_counter_ns()))
        if self.path in self.server.native:
            self._json(200, self.server.native[self.path])
            return
        if self.server.listed is not None:
            self._whole(200, "text/html", self.server.listed.encode())
            return
        listed = {"id": "tiny", "object": "model", "created": 0, "owned_by": "fake"}
        self._json(200, {"object": "list", "data": [{**listed, "max_model_len": 4096}]})

    def do_POST(self) -> None:
        self.server.asked.append((self.path, time.perf_counter_ns()))
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path in self.server.native:
            self._json(200, self.server.native[self.path])
            return
        self.server.requests.append(body)
        self.server.keys.append(self.headers["authorization"])
        behaviour = self.server.behaviour
        if self.server.recorded is not None:
            said = self.server.recorded(body)
            if isinstance(said, str):
                self._recorded(said)
            else:
                self._json(*said)
        elif behaviour.isdecimal():
            self._json(int(behaviour), {"error": {"message": f"it says {behaviour}"}})
        elif behaviour == "full":
            self._json(400, {"error": {"message": self.server.full, "code": 400}})
        elif behaviour == "mute":
            self.server.hung_up.wait()
        elif behaviour == "strict" and "repeat_penalty" in body:
            self._json(422, {"detail": "Unexpected fields in the request: {'repeat_penalty'}"})
        elif behaviour == "uncounted" and "stream_options" in body:
            self._json(400, {"error": {"message": "unknown field stream_options"}})
        else:
            self._stream(body, behaviour)

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._whole(status, "application/json", json.dumps(body).encode())

    def _recorded(self, said: str) -> None:
        self.close_connection = True  # which is how the client learns of the end
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(said.encode())
        self.wfile.flush()
        if self.server.held:
            self.server.hung_up.wait()

    def _whole(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        if status == 429:
            self.send_header("retry-after", "3")
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, body: dict[str, Any], behaviour: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        chat = "messages" in body
        tgi = behaviour == "TGI"
        try:
            if tgi and body.get("top_p", 0) >= 1:
                refused = {"message": "`top_p` must be > 0.0 and < 1.0", "http_status_code": 422}
                self._event({"error": refused})
                self._write(b"")
                return
            self._event(_choice(chat, "", None))  # the role comes first, without text
            new = f" {len(self.server.requests)}" if behaviour == "fickle" else ""
            asked = body.get("max_tokens") or body.get("max_completion_tokens")
            along = self.server.counts_along and body["stream_options"]["continuous_usage_stats"]
            for place, piece in enumerate(() if behaviour == "wordless" else (*CHUNKS, new), 1):
                counted = {"prompt_tokens": 11, "completion_tokens": min(place, len(CHUNKS))}
                usage: dict[str, Any] = {"usage": counted} if along else {}
                self._event({**_choice(chat, piece, None), **usage})
            chunks = len(CHUNKS)
            while self.server.behaviour == "endless" and asked != 1:
                chunks += 1
                counted = {"prompt_tokens": 11, "completion_tokens": 2 * chunks, "total_tokens": 0}
                usage = {"usage": counted} if along else {}
                self._event({**_choice(chat, "on ", None), **usage})
                self.server.hung_up.wait(0.01)
            for more in range(1, self.server.wordless_tokens + 1):
                counted = {"prompt_tokens": 11, "completion_tokens": chunks + more}
                usage = {"usage": {**counted, "total_tokens": 0}} if along else {}
                self._event({**_choice(chat, "", None), **usage})
            if behaviour == "breaks off":
                self._event({"error": {"message": "out of memory"}})
            if self.server.behaviour == "cut":
                self.connection.close()
                self.close_connection = True
                return
            end = "length" if behaviour == "out of room" else "stop"
            usage = {"prompt_tokens": 11, "completion_tokens": 99, "total_tokens": 0}
            counted_end = {"usage": usage} if along else {}
            reason = "eos_token" if tgi and not chat else end
            self._event({**_choice(chat, "", reason), **counted_end})
            if "stream_options" in body and behaviour != "silent on usage":
                said = len(CHUNKS) + 1 if behaviour == "counts the end" else TOKENS
                usage = {"prompt_tokens": 11, "completion_tokens": said, "total_tokens": 18}
                cached = {"prompt_tokens_details": {"cached_tokens": 4}}
                last = {"choices": [], "usage": {**usage, **cached}, "system_fingerprint": BUILD}
                self._event(last)
            self._write(b"data: [DONE]\n\n")
            self._write(b"")
        except OSError:
            self.server.hung_up.set()
            self.close_connection = True

    def _event(self, body: dict[str, Any]) -> None:
        about = {"id": "1", "object": "chunk", "created": 0, "model": "tiny"}
        self._write(b"data: " + json.dumps({**about, **body}).encode() + b"\n\n")

    def _write(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def _choice(chat: bool, piece: str, reason: str | None) -> dict[str, Any]:
    said: dict[str, Any] = {"delta": {"content": piece}} if chat else {"text": piece}
    return {"choices": [{"index": 0, "finish_reason": reason, **said}]}


@contextmanager
def serving(port: int = 0) -> Iterator[FakeServer]:
    """Run a server on `port` of loopback (default: a free port) within this context."""
    with FakeServer(port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.hung_up.set()
            server.shutdown()
            thread.join()
