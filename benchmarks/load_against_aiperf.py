"""Compare `quantchat load` with AIPerf on the same server, in the same minutes.

    python -m venv aiperf && aiperf/bin/pip install aiperf==0.13.0
    python benchmarks/load_against_aiperf.py --aiperf aiperf/bin/aiperf
    python benchmarks/load_against_aiperf.py --aiperf … --url http://127.0.0.1:8000/v1 --model NAME

Without `--url`, both clients send their requests to a server in this script that sends chunks at
fixed times, so that the figures that a client should report are known. At each concurrency the two
clients measure in turn (ABBA), with the same prompts, greedy. Two ratios are computed:

- clients: quantchat's figures of its own requests ÷ AIPerf's figures of its own requests;
- definitions: quantchat's figures of AIPerf's requests, from the arrival times that AIPerf saved,
  ÷ AIPerf's figures of the same requests. This ratio contains no noise.

The result is saved in `benchmarks/results/load_against_aiperf.json`, beside those of other servers;
`--table` prints all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from driving import circumstances

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.features.load_test.plan import LoadTestPlan
from quantchat.features.load_test.run import load_test
from quantchat.profile.model import Profile
from quantchat.statistics.serving import end_to_end_ms, output_tps, tpot_ms, ttft_ms
from quantchat.wire.jobs import LoadTestLevel, RequestTimes

RESULTS = Path(__file__).parent / "results" / "load_against_aiperf.json"
PROMPTS = ("Name three colours.", "How does a bicycle stay upright?", "What is a prime number?")
PACED = "chunks at fixed times"
TTFT_S, ITL_S = 0.8, 0.04
"""When the server in this script sends its first chunk, and the time between two chunks, in s."""

FIGURES = {
    "TTFT, ms": "time_to_first_token",
    "ITL (TPOT), ms": "inter_token_latency",
    "request latency, ms": "request_latency",
    "output tok/s": "output_token_throughput",
}
"""The compared figures, with AIPerf's names. What AIPerf calls inter-token latency is TPOT here."""

Figures = dict[str, float]


class _Paced(BaseHTTPRequestHandler):
    """Sends each chunk at a fixed time after the request arrived; a chunk is one token."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send("application/json", json.dumps({"data": [{"id": "paced"}]}).encode())

    def do_POST(self) -> None:
        began = time.perf_counter()
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        tokens = body.get("max_tokens") or body.get("max_completion_tokens")
        for count in range(tokens):
            time.sleep(max(0.0, began + TTFT_S + count * ITL_S - time.perf_counter()))
            last = "length" if count + 1 == tokens else None
            self._event({"choices": [{"delta": {"content": " a"}, "finish_reason": last}]})
        usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}
        self._event({"choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, what: dict[str, Any]) -> None:
        common = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "paced"}
        choices = [{"index": 0, **choice} for choice in what["choices"]]
        event = {**common, **what, "choices": choices}
        self._chunk(f"data: {json.dumps(event)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def paced_server() -> Iterator[str]:
    """Run the server that sends chunks at fixed times, in threads; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Paced)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()


# ------------------------------------------------------------ the two clients


def of_requests(requests: Sequence[RequestTimes]) -> Figures:
    """Return the compared figures of one round as quantchat computes them: means over requests."""
    if failed := next((one.error for one in requests if one.error), ""):
        raise SystemExit(f"a request failed: {failed}")
    means = (
        statistics.fmean(map(ttft_ms, requests)),
        statistics.fmean(time for one in requests if (time := tpot_ms(one)) is not None),
        statistics.fmean(map(end_to_end_ms, requests)),
        output_tps(requests),
    )
    return dict(zip(FIGURES, means, strict=True))


def with_quantchat(given: argparse.Namespace, url: str, level: int) -> Figures:
    """Measure one round at concurrency `level` as `quantchat load` does; return the figures."""
    one = {"engine": "openai", "model": given.model, "base_url": url}
    variants = [{**one, "label": "server"}, {**one, "label": "a profile has two variants"}]
    profile = Profile.model_validate({"name": "server", "variants": variants})
    plan = LoadTestPlan(
        levels=(LoadTestLevel(level),),
        prompts=PROMPTS,
        prompt_tokens=0,
        output_tokens=given.output_tokens,
        mixed=False,
        requests=given.requests,
        rounds=1,
        seed=0,
    )
    only = profile.model_copy(update={"variants": profile.variants[:1]})
    _, test = asyncio.run(load_test(only, plan, provider=CheckpointBuilder()))
    return of_requests(test.models[0].rounds[0].requests)


def with_aiperf(
    given: argparse.Namespace, url: str, level: int, folder: Path
) -> tuple[Figures, Figures]:
    """Run AIPerf once at concurrency `level`.

    Return the figures that AIPerf reports, and quantchat's figures of the same requests.
    """
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(f"{json.dumps({'text': one})}\n" for one in PROMPTS))
    out = Path(tempfile.mkdtemp(dir=folder))
    command = [
        given.aiperf, "profile", "-m", given.model, "-u", url.removesuffix("/v1"),
        "--endpoint-type", "chat", "--streaming", "--use-legacy-max-tokens", "--ui", "none",
        "--concurrency", str(level), "--request-count", str(given.requests),
        "--warmup-request-count", str(level), "--osl", str(given.output_tokens),
        "--input-file", str(prompts), "--custom-dataset-type", "single_turn",
        "--extra-inputs", "ignore_eos:true", "--extra-inputs", "temperature:0",
        "--tokenizer", given.tokenizer, "--artifact-dir", str(out), "--export-level", "raw",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    reported = json.loads((out / "profile_export_aiperf.json").read_bytes())
    theirs = {name: reported[key]["avg"] for name, key in FIGURES.items()}
    return theirs, of_requests(_requests(out))


def _requests(out: Path) -> list[RequestTimes]:
    """Return the requests of the AIPerf run saved in `out`, without warm-up.

    The token counts are AIPerf's.
    """
    found = []
    files = (out / "profile_export_raw.jsonl", out / "profile_export.jsonl")
    for raw, record in zip(*map(_lines, files), strict=True):
        if raw["metadata"]["benchmark_phase"] != "profiling":
            continue
        assert raw["metadata"]["x_request_id"] == record["metadata"]["x_request_id"]
        sent = raw["start_perf_ns"]
        chunks = [one["perf_ns"] for one in raw["responses"] if _has_text(one)]
        count = record["metrics"]["output_token_count"]["value"]
        ended = raw["responses"][-1]["perf_ns"]
        found.append(RequestTimes(sent, sent, chunks, ended, -1, count))
    return found


def _lines(file: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return sorted(found, key=lambda one: str(one["metadata"]["x_request_id"]))


def _has_text(response: dict[str, Any]) -> bool:
    for packet in response["packets"]:
        if packet["value"] != "[DONE]":
            for choice in json.loads(packet["value"])["choices"]:
                if choice["delta"].get("content"):
                    return True
    return False


# ------------------------------------------------------------ comparing


def measure(given: argparse.Namespace, url: str) -> list[dict[str, Any]]:
    """Let both clients measure each concurrency in turn.

    Return for each concurrency and figure the medians over rounds, and the ratios.
    """
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for level in map(int, given.concurrency.split(",")):
            ours: list[Figures] = []
            theirs: list[Figures] = []
            same: list[Figures] = []
            for count in range(given.rounds):
                for first in (True, False) if count % 2 == 0 else (False, True):
                    if first:
                        ours.append(with_quantchat(given, url, level))
                    else:
                        reported, recomputed = with_aiperf(given, url, level, folder)
                        theirs.append(reported)
                        same.append(recomputed)
            found += [_compared(level, figure, ours, theirs, same) for figure in FIGURES]
    return found


def _compared(
    level: int,
    figure: str,
    ours: Sequence[Figures],
    theirs: Sequence[Figures],
    same: Sequence[Figures],
) -> dict[str, Any]:
    middle = [statistics.median(one[figure] for one in runs) for runs in (ours, theirs, same)]
    definition = [one[figure] / other[figure] for one, other in zip(same, theirs, strict=True)]
    return {
        "concurrency": level,
        "figure": figure,
        "quantchat": round(middle[0], 3),
        "aiperf": round(middle[1], 3),
        "clients": round(middle[0] / middle[1], 4),
        "definitions": [round(min(definition), 4), round(max(definition), 4)],
        "rounds": [
            {"quantchat": round(one[figure], 3), "aiperf": round(other[figure], 3)}
            for one, other in zip(ours, theirs, strict=True)
        ],
    }


def table(saved: dict[str, Any]) -> str:
    """Return the saved results as Markdown, in one table for all servers."""
    heads = (
        "server | concurrency | figure | quantchat | AIPerf"
        " | ratio of clients | ratio of definitions"
    )
    lines = [f"| {heads} |", "| --- | --: | --- | --: | --: | --: | --: |"]
    for server, result in saved.items():
        for one in result["figures"]:
            low, high = one["definitions"]
            same = f"{low:.4f}" if low == high else f"{low:.4f} to {high:.4f}"
            both = f"{one['quantchat']:.1f} | {one['aiperf']:.1f} | {one['clients']:.3f}"
            lines.append(f"| {server} | {one['concurrency']} | {one['figure']} | {both} | {same} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and add the result, or print the table of the saved results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--aiperf", default="aiperf", help="AIPerf's program")
    parser.add_argument("--url", help="address of a running server, with /v1")
    parser.add_argument("--model", default="paced")
    parser.add_argument("--name", help="the server's name in the table (default: MODEL)")
    parser.add_argument("--tokenizer", default="builtin", help="for AIPerf: a folder or hub id")
    parser.add_argument("--concurrency", default="1,4")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--table", action="store_true", help="print the saved results")
    given = parser.parse_args()
    saved = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    if not given.table:
        name = given.name or (given.model if given.url else PACED)
        command = f"load_against_aiperf.py --rounds {given.rounds} --requests {given.requests}"
        version = subprocess.run(
            [given.aiperf, "--version"], check=True, capture_output=True, text=True
        ).stdout.strip()
        with paced_server() as paced:
            result = circumstances(f"{command} --output-tokens {given.output_tokens}")
            saved[name] = {
                **result,
                "aiperf": version,
                "figures": measure(given, given.url or paced),
            }
        RESULTS.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    print(table(saved))


if __name__ == "__main__":
    main()
