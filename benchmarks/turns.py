"""Measure TTFT over a long chat, with and without the KV cache of earlier turns.

`python benchmarks/turns.py` has the same chat twice with each variant of the demo, in two workers
that take turns. One worker ("kept") keeps the KV cache between turns, as in a chat on the screen.
The other one ("fresh") computes each turn from an empty cache. The program writes
`benchmarks/results/turns.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from driving import ask, circumstances, demo_loads, loaded, run

from quantchat.wire.messages import Generate, LoadModel, Message, Sampling

RESULTS = Path(__file__).parent / "results" / "turns.json"
QUESTIONS = ("Name a river of Europe.", "Name one more, and say where it ends.")
LAST = 3
"""Number of turns at each end of the chat over which a median is taken."""


async def chat(label: str, command: LoadModel, given: argparse.Namespace) -> dict[str, Any]:
    """Return TTFT in ms and cached prompt tokens of each turn, for the workers kept and fresh."""
    load = replace(command, threads=given.threads)
    workers = {name: (await loaded(label, load))[0] for name in ("kept", "fresh")}
    found: dict[str, Any] = {name: {"ttft_ms": [], "cached_tokens": []} for name in workers}
    messages: list[Message] = []
    try:
        for turn in range(1, given.turns + 1):
            messages.append(Message("user", QUESTIONS[min(turn, len(QUESTIONS)) - 1]))
            texts = {}
            for name in sorted(workers, reverse=turn % 2 == 0):
                request = Generate(
                    turn,
                    messages,
                    Sampling(),
                    given.tokens,
                    threads=given.threads,
                    fresh=name == "fresh",
                )
                answer = await ask(workers[name], request)
                texts[name] = answer.text
                found[name]["ttft_ms"].append(round(answer.ttft_ms, 1))
                found[name]["cached_tokens"].append(answer.cached_tokens)
            messages.append(Message("assistant", texts["kept"]))
    finally:
        for worker in workers.values():
            await worker.close()
    for one in found.values():
        one["first_turns_ms"] = statistics.median(one["ttft_ms"][1 : 1 + LAST])
        one["last_turns_ms"] = statistics.median(one["ttft_ms"][-LAST:])
    return found


async def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Chat with each variant, and return the result."""
    options = f"--turns {given.turns} --tokens {given.tokens} --threads {given.threads}"
    result = circumstances(f"turns.py {options}")
    result["variants"] = {
        label: await chat(label, command, given) for label, command in (await demo_loads()).items()
    }
    return result


def main() -> None:
    """Measure, write the result, and print the TTFT at both ends of each chat."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    result = run(measure(parser.parse_args()))
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for label, one in result["variants"].items():
        for name, figures in one.items():
            ends = f"{figures['first_turns_ms']:.0f} ms, last {figures['last_turns_ms']:.0f} ms"
            print(f"{label}, {name}: turns 2 to {1 + LAST} {ends}")


if __name__ == "__main__":
    main()
