"""What `seven` does with a variant: load it by each mode, and ask beside `generate`."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from driving import Answer, NotRun, ask, loaded
from seven_kept import Kept
from seven_progress import Progress
from shapes import SHAPES

from quantchat.host.worker_process import Worker
from quantchat.system.process_memory import complete
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.messages import Generate, Load, Message, Ready, Sampling

QUESTION = [Message("user", "Explain step by step how a bicycle stays upright.")]
PLAIN = "generate"


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


class Side(NamedTuple):
    """A variant that is loaded."""

    worker: Worker
    ready: Ready


@asynccontextmanager
async def serving(label: str, load: Load) -> AsyncIterator[Side]:
    """What `load` loads, for as long as the block runs. Raises NotRun where it cannot."""
    side = Side(*await loaded(label, load))
    try:
        yield side
    finally:
        await side.worker.close()


async def variant(
    label: str,
    load: Load,
    wanted: Mapping[str, Sequence[int]],
    asked: Asked,
    kept: Kept,
    progress: Progress,
) -> None:
    """Measure one variant in each mode of `wanted`, at its contexts; what cannot be, says why.

    `generate` stays loaded beside each other mode and answers in the same rounds, so that a slow
    minute of the machine meets both.
    """
    load = replace(load, threads=asked.threads)
    print(f"loading {label}", flush=True)
    try:
        async with serving(label, replace(load, decode=PLAIN)) as plain:
            for mode, contexts in wanted.items():
                progress.begin(f"{label}: {mode}")
                keep = _Keep(kept, label, mode)
                if mode == PLAIN:
                    await _ask({PLAIN: plain}, contexts, asked, keep)
                    continue
                try:
                    async with serving(label, replace(load, decode=mode)) as own:
                        await _ask({mode: own, PLAIN: plain}, contexts, asked, keep)
                except NotRun as error:
                    kernel = plain.ready.resolved.kernel
                    kept.refuse_mode(label, mode, kernel, _reason(error, label, load))
    except NotRun as error:
        progress.skip(len(wanted))
        kept.refuse(label, _reason(error, label, load))


def _reason(error: NotRun, label: str, load: Load) -> str:
    """Without what the reader knows (the label) and what is gone by then (a temporary folder)."""
    reason = str(error).removeprefix(f"{label}: ").replace(load.model, "the checkpoint")
    print(f"  not run: {reason}", flush=True)
    return reason


@dataclass(frozen=True)
class _Keep:
    """Where the figures of one variant in one mode go."""

    kept: Kept
    label: str
    mode: str

    def add(self, ready: Ready, context: int, figures: dict[str, Any]) -> None:
        self._add(self.mode, ready, context, figures)
        print(f"  at {context}: {_word(figures)}", flush=True)

    def beside(self, ready: Ready, context: int, figures: dict[str, Any]) -> None:
        """What `generate` did in the same rounds: its figures, until it is measured by itself."""
        if self.mode != PLAIN and self.kept.left(self.label, PLAIN, [context]):
            self._add(PLAIN, ready, context, figures)

    def _add(self, mode: str, ready: Ready, context: int, figures: dict[str, Any]) -> None:
        loading = {
            "kernel": ready.resolved.kernel,
            "decode": ready.resolved.decode,
            "load_s": {
                "import": round(ready.import_s, 2),
                "weights": round(ready.weights_s, 2),
                "warm_up": round(ready.warmup_s, 2),
            },
        }
        self.kept.add(self.label, mode, loading, context, figures)


async def _ask(sides: dict[str, Side], contexts: Sequence[int], asked: Asked, keep: _Keep) -> None:
    """Ask at each context; where one fails, for memory say, the others still have their figures."""
    for context in contexts:
        try:
            found = await _context(sides, context, asked, keep.mode)
        except NotRun as error:
            found = {keep.mode: {"not_run": str(error)}}
        keep.add(sides[keep.mode].ready, context, found[keep.mode])
        if PLAIN in found:
            keep.beside(sides[PLAIN].ready, context, found[PLAIN])


async def _context(
    sides: dict[str, Side], context: int, asked: Asked, mode: str
) -> dict[str, dict[str, Any]]:
    """The figures of each of `sides`."""
    answers: dict[str, list[Answer]] = {side: [] for side in sides}
    for number in range(asked.rounds + 1):  # the first one warms up
        order = list(sides) if number % 2 else list(reversed(sides))
        for side in order:
            try:
                answer = await ask(sides[side].worker, asked.request(number + 1, context))
            except NotRun as error:
                if side == mode:
                    raise
                raise NotRun(f"{side}, asked beside it: {error}") from None
            if number:
                answers[side].append(answer)
    return {
        name: _figures(side, answers[name], answers[PLAIN], asked.shape)
        for name, side in sides.items()
    }


def _figures(side: Side, own: list[Answer], beside: list[Answer], shape: str) -> dict[str, Any]:
    rates = [answer.tok_s or 0.0 for answer in own]
    plain = [answer.tok_s or 0.0 for answer in beside]
    return {
        "tok_s": [round(rate, 2) for rate in rates],
        "ratio": [round(a / b, 3) for a, b in zip(rates, plain, strict=True)],
        "ttft_ms": [round(answer.ttft_ms, 1) for answer in own],
        "ledger": _ledger(side.worker, own[-1], side.ready),
        "bytes_per_token": _read(shape, own[-1], side.ready),
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
        return f"not run: {figures['not_run']}"
    middle = {name: statistics.median(figures[name]) for name in ("tok_s", "ratio", "ttft_ms")}
    return (
        f"{middle['tok_s']:.1f} tok/s, {middle['ratio']:.2f} × generate, "
        f"TTFT {middle['ttft_ms']:.0f} ms"
    )
