"""Measure how soon a stop takes effect while a long prompt is computed.

`python benchmarks/stopping.py` gives each variant of the demo, in the decode modes `generate` and
`eager`, a prompt of 8000 tokens, and stops the answer at several moments. It writes the times from
the stop request to the end of the answer, as measured outside the worker, to
`benchmarks/results/stopping.json`. The exit status is 1 if one takes 200 ms or more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from driving import circumstances, demo_loads, loaded, run

from quantchat.host.worker_process import Worker
from quantchat.wire.messages import Finished, Generate, Message, Prefilled, Sampling, Stop

RESULTS = Path(__file__).parent / "results" / "stopping.json"
QUESTION = [Message("user", "Explain step by step how a bicycle stays upright.")]
MODES = ("generate", "eager")
AFTER_S = (0.3, 1.0, 2.0, 4.0)
GOAL_MS = 200


async def answered_ms(worker: Worker, request: Generate, after_s: float) -> tuple[float, int]:
    """Send `request`, and stop its answer after `after_s` seconds.

    Return the ms from the stop to the end of the answer, and the prompt tokens computed by then.
    """

    async def stop() -> float:
        await asyncio.sleep(after_s)
        worker.send(Stop(request.turn))
        return time.perf_counter()

    worker.send(request)
    stopping = asyncio.ensure_future(stop())
    done = 0
    async for event in worker.events():
        if isinstance(event, Prefilled):
            done = event.done
        elif isinstance(event, Finished):
            ended = time.perf_counter()
            return 1000 * (ended - await stopping), done
    raise AssertionError("unreachable: the events end with an exception")


async def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Stop each variant in each decode mode at each of `AFTER_S`, and return the result."""
    result = circumstances(f"stopping.py --tokens {given.tokens} --threads {given.threads}")
    result["variants"] = {}
    turn = 0
    for label, command in (await demo_loads()).items():
        for mode in MODES:
            load = replace(command, decode=mode, threads=given.threads)
            worker, _ = await loaded(label, load)
            found = []
            for after_s in AFTER_S:
                turn += 1
                request = Generate(
                    turn, QUESTION, Sampling(), 8, threads=given.threads, fresh=True,
                    prompt_tokens=given.tokens,
                )  # fmt: skip
                waited, done = await answered_ms(worker, request, after_s)
                found.append({"after_s": after_s, "ms": round(waited, 1), "prompt_tokens": done})
            await worker.close()
            result["variants"][f"{label}, {mode}"] = found
            print(f"{label}, {mode}:", ", ".join(f"{one['ms']:.0f} ms" for one in found))
    return result


def main() -> int:
    """Measure and write the result; 0 if each stop took effect in time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2)
    result = run(measure(parser.parse_args()))
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    slowest = max(one["ms"] for found in result["variants"].values() for one in found)
    print(f"slowest: {slowest:.0f} ms, the goal is {GOAL_MS} ms")
    return 0 if slowest < GOAL_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
