"""Compare real servers, `transformers serve` and llama.cpp's, with a variant loaded by quantchat.

`python benchmarks/servers.py` creates an environment with llama.cpp's server (built from source
once, which takes minutes). quantchat measures three pairs: each server and bf16, which it loads
itself, then both servers. It starts the servers on loopback. All have the same weights: the GGUF
file is the one from which the demo's bf16 base model was unpacked. They get the same prompts,
greedy, one at a time.

The program writes `benchmarks/results/servers.json`: whether the texts are equal, TTFT and ITL
computed from arrival times, the token counts of each server, the memory of its processes, and how
many processes were left at the end. Where a server's text diverges from that of bf16, it also
contains the probabilities that bf16 gives to both tokens. `--table` prints the table of
`docs/how-to/servers.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from driving import circumstances, demo_gguf, loaded, run

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.engines.transformers import Transformers
from quantchat.engines.variant import DEMO_MODEL
from quantchat.measuring.measure import measure
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.session.prompts import DEFAULT
from quantchat.session.requests import load_request
from quantchat.snapshot.schema import AnswerRecord, Snapshot, TurnRecord
from quantchat.wire.messages import NO_ID, Message, ScoreTokens, TokenScores

RESULTS = Path(__file__).parent / "results" / "servers.json"
REQUIREMENTS = Path(__file__).parent / "llama_server.txt"
ENV = "llama-server"
LOCAL, SERVE, LLAMA = "bf16, here", "transformers serve", "llama.cpp"
PAIRS = ((0, 1), (0, 2), (1, 2))
ADDRESS = "http://127.0.0.1:{port}"


def profile(base: Path, gguf: Path, tokens: int) -> Profile:
    """Return a profile of the three variants; servers start as their documentation says."""
    serve = ["transformers", "serve", str(base), "--host", "127.0.0.1", "--port", "{port}"]
    llama = ["python", "-m", "llama_cpp.server", "--model", str(gguf), "--model_alias", gguf.stem]
    llama += ["--n_ctx", "2048", "--host", "127.0.0.1", "--port", "{port}"]
    llama += ["--interrupt_requests", "false"]  # otherwise a request ends the one before it
    served = {"engine": "openai", "base_url": f"{ADDRESS}/v1"}
    variants = [
        {"label": LOCAL, "engine": "transformers", "model": DEMO_MODEL, "decode": "generate"},
        {
            **served, "label": SERVE, "model": str(base),
            "server": {"command": serve, "ready": f"{ADDRESS}/health", "timeout_s": 300},
        },
        {
            **served, "label": LLAMA, "model": gguf.stem,
            "server": {"command": llama, "env": ENV, "timeout_s": 300},
        },
    ]  # fmt: skip
    return Profile.model_validate(
        {"name": "servers", "variants": variants, "generation": {"max_new_tokens": tokens}}
    )


def make_environment() -> None:
    """Create the environment of llama.cpp's server, if it is missing."""
    create = ["quantchat", "env", "create", ENV, "-r", str(REQUIREMENTS)]
    subprocess.run([sys.executable, "-m", *create], check=True)


class Family:
    """Collects the descendants of this process: servers, workers and what they start."""

    def __init__(self) -> None:
        self.seen: dict[int, psutil.Process] = {}

    def look(self) -> None:
        """Add the descendants that exist now."""
        for one in psutil.Process().children(recursive=True):
            self.seen.setdefault(one.pid, one)

    def left(self) -> int:
        """Return how many of the seen processes still run after 3 s."""
        _, alive = psutil.wait_procs(self.seen.values(), timeout=3)
        return len(alive)


async def explain(spec: Transformers, turn: TurnRecord, tokens: int) -> dict[str, Any] | None:
    """Return where the server's text diverges from that of `spec`, the variant loaded by quantchat.

    Also return the probabilities that `spec` gives to both tokens there. None if the texts of
    `turn` are equal.
    """
    from transformers import AutoTokenizer

    made = await CheckpointBuilder().prepare(spec, lambda progress: None)
    own, other = turn.answers
    if own.text == other.text:
        return None
    said = AutoTokenizer.from_pretrained(made.model)(other.text, add_special_tokens=False)
    theirs = said["input_ids"][:tokens]
    pairs = enumerate(zip(own.ids, theirs, strict=False))
    point = next((index for index, (a, b) in pairs if a != b), None)
    if point is None:
        return {"token": min(len(own.ids), len(theirs)), "why": "one ends there"}
    worker, _ = await loaded(spec.label, load_request(spec, made))
    try:
        wanted = own.ids[: point + 1]
        messages = [Message("user", turn.prompt)]
        worker.send(ScoreTokens(1, messages, wanted, point, [theirs[point]], threads=2))
        async for event in worker.events():
            if isinstance(event, TokenScores):
                return {
                    "token": point,
                    "own": own.pieces[point],
                    "own_probability": round(math.exp(event.logprobs[0]), 4),
                    "its_probability": round(math.exp(event.also[0]), 4),
                }
    finally:
        await worker.close()
    raise AssertionError("unreachable: the events end with an exception")


def figures(snapshot: Snapshot, label: str) -> dict[str, Any]:
    """Return the figures of one variant in one measurement: medians over its answers."""
    variant = next(one for one in snapshot.variants if one.label == label)
    answers = [a for t in snapshot.turns for a in t.answers if a.variant == label]
    assert variant.memory is not None and variant.load is not None
    assert variant.model_info is not None

    def median(of: Any) -> float | None:
        known = [value for value in map(of, answers) if value is not None]
        return round(statistics.median(known), 2) if known else None

    return {
        "kernel": variant.model_info.kernel,
        "load_s": {
            "total": round(variant.load.total_s, 1),
            "import": round(variant.load.import_s, 1),
            "weights or the server's start": round(variant.load.weights_s, 1),
            "first answer": round(variant.load.warmup_s, 1),
        },
        "ttft_ms": median(lambda a: a.timing.ttft_ms),
        "itl_ms_p50": median(lambda a: a.timing.itl_ms and a.timing.itl_ms.p50),
        "decode_tok_s": median(lambda a: a.timing.decode_tok_s),
        "arrivals_s": median(_arrivals),
        "counted": all(answer.timing.output_tokens >= 0 for answer in answers),
        "output_tokens": [answer.timing.output_tokens for answer in answers],
        "arrived": [len(answer.times_ns) for answer in answers],
        "chunks": all(NO_ID in answer.ids for answer in answers),
        "prompt_tokens": [answer.prompt_tokens for answer in answers],
        "memory_bytes": variant.memory.bytes,
        "memory_source": variant.memory.source,
        "note": variant.note,
    }


def _arrivals(answer: AnswerRecord) -> float | None:
    """Return the arrivals per second: tokens of a local variant, chunks of a server."""
    times = answer.times_ns
    return (len(times) - 1) * 1e9 / (times[-1] - times[0]) if len(times) > 1 else None


async def each_pair(rounds: int, tokens: int) -> dict[str, Any]:
    """Measure each pair, and count the processes that are left at the end."""
    base = Transformers(label=LOCAL, engine="transformers", model=DEMO_MODEL, decode="generate")
    folder = Path((await CheckpointBuilder().prepare(base, lambda progress: None)).model)
    spec = profile(folder, await demo_gguf(), tokens)
    process_tree = Family()
    result: dict[str, Any] = {"pairs": []}
    for pair in PAIRS:
        comparison = Comparison(spec, provider=CheckpointBuilder())
        comparison.pair = pair
        plan = Plan(tuple(map(Task, DEFAULT)), rounds=rounds)
        snapshot = await measure(
            comparison, plan, on_step=lambda done, total, detail: process_tree.look()
        )
        turns = [turn for turn in snapshot.turns if turn.round == 1]
        same = [turn.answers[0].text == turn.answers[1].text for turn in turns]
        one = {
            "variants": {label: figures(snapshot, label) for label in snapshot.shown},
            "equal_texts": sum(same),
            "prompts": len(same),
            "steady": _steady(snapshot),
        }
        if pair[0] == 0:
            one["parted"] = [await explain(base, turn, tokens) for turn in turns]
        result["pairs"].append(one)
    result["processes_seen"] = len(process_tree.seen)
    result["processes_left"] = process_tree.left()
    return result


def _steady(snapshot: Snapshot) -> bool:
    """Return whether each variant answered each prompt with the same text in all rounds."""
    said: dict[tuple[str, int | None], set[str]] = {}
    for turn in snapshot.turns:
        for answer in turn.answers:
            said.setdefault((answer.variant, turn.task), set()).add(answer.text)
    return all(len(texts) == 1 for texts in said.values())


def table(result: dict[str, Any]) -> str:
    """Return the saved result as Markdown."""
    lines = [
        "| pair | variant | TTFT, ms | ITL p50, ms | chunks/s | tok/s | memory | equal answers |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for number, pair in enumerate(result["pairs"], 1):
        for label, one in pair["variants"].items():
            rate = one["decode_tok_s"] if one["counted"] else None
            cells = [one["ttft_ms"], one["itl_ms_p50"], one["arrivals_s"], rate]
            told = " | ".join("–" if cell is None else f"{cell:.1f}" for cell in cells)
            memory = f"{one['memory_bytes'] / 2**20:.0f} MiB"
            equal = f"{pair['equal_texts']} of {pair['prompts']}"
            lines.append(f"| {number} | {label} | {told} | {memory} | {equal} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and write the result, or print the saved one; 0 if no process was left running."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--table", action="store_true", help="print the saved result")
    given = parser.parse_args()
    if not given.table:
        make_environment()
        result = circumstances(f"servers.py --rounds {given.rounds} --tokens {given.tokens}")
        result |= run(each_pair(given.rounds, given.tokens))
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))
    print(table(kept))
    return 1 if kept["processes_left"] else 0


if __name__ == "__main__":
    sys.exit(main())
