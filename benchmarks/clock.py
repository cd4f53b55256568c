"""Compare the worker's times with an independent clock.

`python benchmarks/clock.py` measures the variants of the demo one at a time. The host (the process
that starts the workers) notes when it sends each request and when each batch of tokens arrives,
with a clock that is never adjusted (CLOCK_MONOTONIC_RAW). From these times it computes two figures
of each answer, and divides the worker's own figures by them:

- end to end: the time from the request to the last token;
- TPOT of the tokens after the first batch: from the last token of that batch to the last of all.

The host's figures include the pipe and the batching of tokens, up to 30 ms per answer: 1.5 % of an
answer of 2 s. The exit status is 1 if the median ratio of a figure differs from 1 by more than 2 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.host.worker_process import Place, Worker, start_worker
from quantchat.measuring.measure import measure
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.library import find
from quantchat.profile.load import load
from quantchat.session.comparison import Comparison
from quantchat.statistics.latency import tpot_ms
from quantchat.wire.messages import Generate, Tokens
from quantchat.wire.protocol import Command, Event

RESULTS = Path(__file__).parent / "results" / "clock.json"
TOLERANCE = 0.02
PROMPTS = (
    "Explain step by step how a bicycle stays upright.",
    "Summarise the causes of the French Revolution in one paragraph.",
)


def outside_ns() -> int:
    """Return the time of CLOCK_MONOTONIC_RAW in ns; workers read another clock."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


@dataclass
class Stamps:
    """The times of one answer as seen by the host, in ns."""

    sent_ns: int
    batches: list[tuple[int, int]] = field(default_factory=list)
    """For each batch of tokens, when it arrived and the number of tokens so far."""


class WatchedWorker:
    """A worker whose messages are timestamped as they pass."""

    def __init__(self, worker: Worker, stamps: dict[tuple[int, int], Stamps]) -> None:
        self._worker = worker
        self._stamps = stamps

    @property
    def pid(self) -> int:
        return self._worker.pid

    @property
    def log(self) -> Path:
        return self._worker.log

    def send(self, command: Command) -> None:
        if isinstance(command, Generate):
            self._stamps[self.pid, command.turn] = Stamps(outside_ns())
        self._worker.send(command)

    async def events(self) -> AsyncIterator[Event]:
        async for event in self._worker.events():
            if isinstance(event, Tokens):
                batches = self._stamps[self.pid, event.turn].batches
                before = batches[-1][1] if batches else 0
                batches.append((outside_ns(), before + len(event.ids)))
            yield event

    async def close(self) -> None:
        await self._worker.close()


def ratios(stamps: Stamps, received_ns: int, times_ns: list[int]) -> dict[str, float]:
    """Return the worker's figures of one answer, divided by the host's.

    `received_ns` (arrival of the request) and `times_ns` (of the tokens) are by the worker's clock.
    """
    (first_ns, in_first), (last_ns, count) = stamps.batches[0], stamps.batches[-1]
    assert count == len(times_ns), "a token was lost"
    own_tpot = tpot_ms(times_ns[in_first - 1 :])
    assert own_tpot is not None, "an answer of one batch"
    return {
        "end_to_end": (times_ns[-1] - received_ns) / (last_ns - stamps.sent_ns),
        "tpot": own_tpot / ((last_ns - first_ns) / (count - in_first) / 1e6),
    }


async def compare(rounds: int, tokens: int) -> dict[str, list[dict[str, float]]]:
    """Return the ratios of all answers, by variant."""
    stamps: dict[tuple[int, int], Stamps] = {}
    pids: dict[str, int] = {}

    async def start(place: Place) -> Worker:
        worker = WatchedWorker(await start_worker(place), stamps)
        pids[place.label] = worker.pid
        return worker

    comparison = Comparison(load(find("demo")), provider=CheckpointBuilder(), start=start)
    tasks = tuple(Task(prompt, output_tokens=tokens) for prompt in PROMPTS)
    saved = await measure(comparison, Plan(tasks, rounds=rounds, ignore_eos=True))
    found: dict[str, list[dict[str, float]]] = {}
    for turn in saved.turns:
        for answer in turn.answers:
            seen = stamps[pids[answer.variant], turn.number]
            found.setdefault(answer.variant, []).append(
                ratios(seen, answer.received_ns, answer.times_ns)
            )
    return found


def main() -> int:
    """Measure and write the result; 0 if the clocks agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    given = parser.parse_args()
    found = asyncio.run(compare(given.rounds, given.tokens))
    medians = {
        variant: {
            figure: round(statistics.median(one[figure] for one in answers), 4)
            for figure in answers[0]
        }
        for variant, answers in found.items()
    }
    result = {
        "what": "worker's own figure over the one timed from outside, median and each answer",
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": f"python benchmarks/clock.py --rounds {given.rounds} --tokens {given.tokens}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "median": medians,
        "answers": {
            variant: {figure: [round(one[figure], 4) for one in answers] for figure in answers[0]}
            for variant, answers in found.items()
        },
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(medians, indent=2))
    off = [ratio for one in medians.values() for ratio in one.values()]
    return 0 if all(abs(ratio - 1) <= TOLERANCE for ratio in off) else 1


if __name__ == "__main__":
    sys.exit(main())
