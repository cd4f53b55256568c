"""What `seven` does with a variant: load it by each mode, and ask beside `generate`."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from driving import Answer, NotRun, ask, loaded
from shapes import SHAPES

from quantchat.host.worker_process import Worker
from quantchat.metrics.memory import complete
from quantchat.metrics.sampler import DeviceSampler
from quantchat.worker.protocol import Generate, Load, Message, Ready, Sampling

QUESTION = [Message("user", "Explain step by step how a bicycle stays upright.")]
PLAIN = "generate"
SHORTEST_PAIR = 4
"""Turns of the pair in each order: two ABBA."""


@dataclass(frozen=True)
class Asked:
    """How the variants are asked."""

    shape: str
    contexts: Sequence[int]
    """Prompt tokens."""
    tokens: int
    """Of each answer."""
    rounds: int
    threads: int
    """Of the CPU; 0 leaves torch its own choice."""

    def request(self, turn: int, context: int, threads: int | None = None) -> Generate:
        """One prompt of `context` tokens, alone, answered in full."""
        return Generate(
            turn,
            QUESTION,
            Sampling(),
            self.tokens,
            threads=self.threads if threads is None else threads,
            ignore_eos=True,
            fresh=True,
            prompt_tokens=context,
        )


async def variant(label: str, load: Load, modes: Sequence[str], asked: Asked) -> dict[str, Any]:
    """The figures of one variant by mode; of a mode that cannot be had, the reason.

    `generate` stays loaded beside each other mode and answers in the same rounds, so that a slow
    minute of the machine meets both.
    """
    print(label, flush=True)
    load = replace(load, threads=asked.threads)
    try:
        plain, plain_ready = await loaded(label, replace(load, decode=PLAIN))
    except NotRun as error:
        return {"not_run": str(error)}
    found: dict[str, Any] = {"kernel": plain_ready.resolved.kernel, "modes": {}}
    try:
        for mode in modes:
            if mode == PLAIN:
                sides = {PLAIN: (plain, plain_ready)}
            else:
                try:
                    sides = {mode: await loaded(label, replace(load, decode=mode))}
                except NotRun as error:
                    found["modes"][mode] = {"not_run": str(error)}
                    continue
                sides[PLAIN] = (plain, plain_ready)
            try:
                found["modes"][mode] = await _mode(mode, sides, asked)
            except NotRun as error:
                found["modes"][mode] = {"not_run": str(error)}
            if mode != PLAIN:
                await sides[mode][0].close()
            print(f"  {mode}: {_word(found['modes'][mode])}", flush=True)
    finally:
        await plain.close()
    return found


async def _mode(mode: str, sides: dict[str, tuple[Worker, Ready]], asked: Asked) -> dict[str, Any]:
    ready = sides[mode][1]
    contexts: dict[str, Any] = {}
    turn = 0
    for context in asked.contexts:
        answers: dict[str, list[Answer]] = {side: [] for side in sides}
        for number in range(asked.rounds + 1):  # the first one warms up
            order = list(sides) if number % 2 else list(reversed(sides))
            for side in order:
                turn += 1
                answer = await ask(sides[side][0], asked.request(turn, context))
                if number:
                    answers[side].append(answer)
        rates = [answer.tok_s or 0.0 for answer in answers[mode]]
        plain = [answer.tok_s or 0.0 for answer in answers[PLAIN]]
        contexts[str(context)] = {
            "tok_s": [round(rate, 2) for rate in rates],
            "ratio": [round(a / b, 3) for a, b in zip(rates, plain, strict=True)],
            "ttft_ms": [round(answer.ttft_ms, 1) for answer in answers[mode]],
            "ledger": _ledger(sides[mode][0], answers[mode][-1], ready),
            "bytes_per_token": _read(asked.shape, answers[mode][-1], ready),
        }
    return {
        "decode": ready.resolved.decode,
        "load_s": {
            "import": round(ready.import_s, 2),
            "weights": round(ready.weights_s, 2),
            "warm_up": round(ready.warmup_s, 2),
        },
        "contexts": contexts,
    }


def _ledger(worker: Worker, answer: Answer, ready: Ready) -> dict[str, Any]:
    ledger = answer.ledger or ready.ledger
    sampler = DeviceSampler()
    held = complete(ledger, sampler.process_memory(worker.pid, ledger))
    sampler.close()
    return dataclasses.asdict(held)


def _read(shape: str, answer: Answer, ready: Ready) -> int:
    """Bytes that one token must read: of the input embedding it reads a single row."""
    sizes = SHAPES[shape]
    width = 4 if ready.resolved.dtype == "float32" else 2
    ledger = answer.ledger or ready.ledger
    return ledger.weights - sizes.vocabulary * sizes.hidden * width + ledger.kv_cache


def _word(figures: dict[str, Any]) -> str:
    if "not_run" in figures:
        return str(figures["not_run"])
    rates = [statistics.median(one["tok_s"]) for one in figures["contexts"].values()]
    return " / ".join(f"{rate:.1f}" for rate in rates) + " tok/s"


# ------------------------------------------------------------ two at once


async def pair(measured: dict[str, Any], loads: dict[str, Load], asked: Asked) -> dict[str, Any]:
    """The fastest GPTQ 4-bit and NF4 side by side: tok/s of each, in turn and together."""
    labels = [
        _fastest(measured, lambda label: label.startswith("GPTQ 4-bit")),
        _fastest(measured, lambda label: label.startswith("NF4")),
    ]
    if None in labels:
        return {"not_run": "no GPTQ 4-bit or no NF4 was measured"}
    workers = {}
    try:
        for label in labels:
            assert label is not None
            workers[label], _ = await loaded(label, replace(loads[label], threads=asked.threads))
        return {"context": asked.contexts[0], **await _orders(workers, asked)}
    except NotRun as error:
        return {"not_run": str(error)}
    finally:
        for worker in workers.values():
            await worker.close()


async def _orders(workers: dict[str, Worker], asked: Asked) -> dict[str, Any]:
    rates: dict[str, dict[str, list[float]]] = {
        order: {label: [] for label in workers} for order in ("in turn", "together")
    }
    shared = max(1, asked.threads // 2) if asked.threads else 0
    turns = max(SHORTEST_PAIR, asked.rounds)
    for number in range(turns + 1):
        labels = list(workers) if number % 4 in (0, 3) else list(reversed(workers))
        request = asked.request(2 * number, asked.contexts[0])
        for label in labels:
            answer = await ask(workers[label], request)
            if number:
                rates["in turn"][label].append(round(answer.tok_s or 0.0, 2))
        request = asked.request(2 * number + 1, asked.contexts[0], threads=shared)
        both = await asyncio.gather(*(ask(workers[label], request) for label in labels))
        if number:
            for label, answer in zip(labels, both, strict=True):
                rates["together"][label].append(round(answer.tok_s or 0.0, 2))
    return rates


def _fastest(measured: dict[str, Any], fits: Any) -> str | None:
    """Label of the variant that had the highest throughput in any mode."""
    speeds = {}
    for label, one in measured.items():
        rates = [
            statistics.median(next(iter(mode["contexts"].values()))["tok_s"])
            for mode in one.get("modes", {}).values()
            if "contexts" in mode
        ]
        if rates and fits(label):
            speeds[label] = max(rates)
    return max(speeds, key=lambda label: speeds[label]) if speeds else None
