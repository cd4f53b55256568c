"""Compare the cost of showing a stream with another Textual chat client, Elia.

`python benchmarks/peer.py` creates an environment with Elia (github.com/darrenburns/elia), a client
for one model at a time. It runs an OpenAI-compatible server on loopback that streams texts at 300
tokens per second. Elia shows one such stream; quantchat shows two, as two variants of the engine
`openai`. For each served token it reports the processor time of the process that draws, the
processor time including child processes (Elia reads HTTP in its own process, quantchat in its
workers), and the bytes sent to the terminal. It writes `benchmarks/results/peer.json`; `--table`
prints the documentation's table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from driving import circumstances
from session import TESTS, Session, keep, kept

sys.path.insert(0, str(TESTS))

from fakes.served_pair import served_pair
from fakes.synthetic_text import tokens
from quantchat.host.environments import Environment, Environments

ELIA = ("elia-chat==1.10.0",)
KINDS = ("prose", "code")
RATE = 300
"""Tokens per second of each stream."""
MOST = 100_000
"""Largest number of tokens in a stream."""
SETTLING_S = 4.0
"""Time from the first tokens until the measurement begins."""
MEASURED_S = 8.0
"""Duration of a measurement."""


class Streams(ThreadingHTTPServer):
    """Streams to each request the kind of text that its last message names, token by token.

    To other requests it sends one token.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.served = 0
        """Tokens so far, in all streams together."""
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Streams

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._begin("application/json")
        self.wfile.write(json.dumps({"object": "list", "data": []}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        kind = str(body["messages"][-1]["content"]).split()[-1]
        most = MOST if kind in KINDS else 1
        self._begin("text/event-stream")
        due = time.perf_counter()
        try:
            for piece in tokens(kind if kind in KINDS else KINDS[0], most):
                due += 1 / RATE
                time.sleep(max(0.0, due - time.perf_counter()))
                self._event({"delta": {"content": piece}, "finish_reason": None})
                with self.server.lock:
                    self.server.served += most > 1
            self._event({"delta": {}, "finish_reason": "stop"})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            return

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

    def _event(self, choice: dict[str, Any]) -> None:
        about = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "tiny"}
        body = json.dumps({**about, "choices": [{"index": 0, **choice}]})
        self.wfile.write(f"data: {body}\n\n".encode())
        self.wfile.flush()


def measured(session: Session, streams: Streams) -> dict[str, Any]:
    """Wait until `session` streams, then measure; return the cost per token served."""
    began_with = streams.served
    while streams.served < began_with + RATE // 10:
        time.sleep(0.01)
        if session.process.poll() is not None:
            raise SystemExit("the client ended before it showed a stream")
    time.sleep(SETTLING_S)
    cpu_s, received, served = session.cpu_s(), session.received, streams.served
    started_s = session.started_cpu_s()
    began = time.perf_counter()
    time.sleep(MEASURED_S)
    wall_s, shown = time.perf_counter() - began, streams.served - served
    cpu = session.cpu_s() - cpu_s
    whole = cpu + session.started_cpu_s() - started_s
    return {
        "tokens_s": round(shown / wall_s, 1),
        "cpu_share_of_a_core": round(cpu / wall_s, 3),
        "cpu_us_per_token": round(1e6 * cpu / shown),
        "cpu_us_per_token_with_workers": round(1e6 * whole / shown),
        "bytes_per_token": round((session.received - received) / shown),
        "resident_mb": session.resident_mb(),
    }


def elia(environment: Environment, streams: Streams, kind: str) -> dict[str, Any]:
    """Measure Elia on one stream."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        home = Path(name)
        (home / "elia").mkdir()
        model = {"name": "openai/tiny", "api_base": streams.url, "api_key": "none"}
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in model.items())
        (home / "elia" / "config.toml").write_text(f"[[models]]\n{lines}\n")
        session = Session(
            [str(environment.folder / "bin" / "elia"), "-m", "openai/tiny", kind],
            env={
                "PYTHONPATH": "",
                "XDG_CONFIG_HOME": name,
                "XDG_DATA_HOME": name,
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no request to litellm's server
            },
        )
        try:
            return measured(session, streams)
        finally:
            session.close()


def quantchat(streams: Streams, kind: str) -> dict[str, Any]:
    """Measure quantchat on two streams."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        profile = Path(name) / "peer.toml"
        profile.write_text(
            served_pair(streams.url, name="the same stream, twice", max_new_tokens=MOST)
        )
        program = [sys.executable, "-m", "quantchat", str(profile), "--snapshots", name]
        session = Session(program, env={"QUANTCHAT_LOGS": name})
        try:
            session.wait_for("● ready", times=2)
            session.type(f"{kind}\r")
            return measured(session, streams)
        finally:
            session.end()


def table(result: dict[str, Any]) -> str:
    """Return the result as the documentation's Markdown table."""
    lines = [
        "| client | text | tok/s shown | CPU µs per token | CPU µs per token, with workers"
        " | bytes per token | memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one['client']} | {one['kind']} | {one['tokens_s']:.0f} | {one['cpu_us_per_token']} "
        f"| {one['cpu_us_per_token_with_workers']} | {one['bytes_per_token']} "
        f"| {one['resident_mb']:.0f} |"
        for one in result["streams"]
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure both programs, one after the other, and save the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="print the table of the saved result")
    if parser.parse_args().table:
        print(table(kept("peer")))
        return
    result = circumstances("peer.py")
    making = Environments().create("elia", ELIA, lambda told: None)
    environment = asyncio.run(making)
    versions = environment.packages
    result["elia"] = {name: versions[name] for name in ("elia_chat", "textual") if name in versions}
    streams = Streams()
    result["streams"] = []
    for kind in KINDS:
        runs: dict[str, Callable[[], dict[str, Any]]] = {
            "Elia, one stream": partial(elia, environment, streams, kind),
            "quantchat, two streams": partial(quantchat, streams, kind),
        }
        for client, run in runs.items():
            result["streams"].append({"client": client, "kind": kind, **run()})
            print(json.dumps(result["streams"][-1]), file=sys.stderr, flush=True)
    keep("peer", result)
    print(table(result))


if __name__ == "__main__":
    main()
