"""Measures a variant in each decode mode, beside `generate` in the same rounds."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NamedTuple

from driving import Answer, NotRun, ask, loaded

from llama7b.results import SavedResults
from llama7b.shapes import SHAPES
from quantchat.host.worker_process import Worker
from quantchat.system.process_memory import with_process_memory
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.messages import Generate, LoadModel, Message, Ready, Sampling

QUESTION = [Message("user", "Explain step by step how a bicycle stays upright.")]
PLAIN = "generate"


class Progress:
    """Counts the steps (a variant in one mode each) and prints each when it begins."""

    def __init__(self, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps = steps
        self._begun = 0
        self._clock = clock
        self._since = clock()

    def begin(self, what: str) -> None:
        """Print that the next step, `what`, begins, and how long the rest takes."""
        spent = self._clock() - self._since
        done = self._begun
        self._begun += 1
        left = f", about {_clock_time(spent / done * (self._steps - done))} left" if done else ""
        print(f"[{self._begun} of {self._steps}, {_clock_time(spent)}{left}] {what}", flush=True)

    def skip(self, steps: int) -> None:
        """Take `steps` steps off the count: their variant cannot be loaded."""
        self._steps -= steps


def _clock_time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@dataclass(frozen=True)
class Asked:
    """The settings of the benchmark."""

    shape: str
    contexts: Sequence[int]
    """Lengths of the prompts in tokens."""
    tokens: int
    """Tokens of each answer."""
    rounds: int
    threads: int
    """Number of CPU threads; 0 leaves the choice to torch."""

    def request(self, turn: int, context: int, threads: int | None = None) -> Generate:
        """Return the request for an answer to `context` prompt tokens, without a cached prefix."""
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
    """A loaded variant."""

    worker: Worker
    ready: Ready


@asynccontextmanager
async def serving(label: str, load: LoadModel) -> AsyncIterator[Side]:
    """Keep a variant loaded while the `with` block runs. Raises NotRun if it cannot be loaded."""
    side = Side(*await loaded(label, load))
    try:
        yield side
    finally:
        await side.worker.close()


async def variant(
    label: str,
    load: LoadModel,
    wanted: Mapping[str, Sequence[int]],
    asked: Asked,
    saved: SavedResults,
    progress: Progress,
) -> None:
    """Measure one variant in each mode of `wanted` at that mode's contexts, or save why that fails.

    `generate` stays loaded beside each other mode and answers in the same rounds, so that a slow
    minute of the machine affects both.
    """
    load = replace(load, threads=asked.threads)
    print(f"loading {label}", flush=True)
    try:
        async with serving(label, replace(load, decode=PLAIN)) as plain:
            for mode, contexts in wanted.items():
                progress.begin(f"{label}: {mode}")
                saver = _Saver(saved, label, mode)
                if mode == PLAIN:
                    await _ask({PLAIN: plain}, contexts, asked, saver)
                    continue
                try:
                    async with serving(label, replace(load, decode=mode)) as own:
                        await _ask({mode: own, PLAIN: plain}, contexts, asked, saver)
                except NotRun as error:
                    kernel = plain.ready.model_info.kernel
                    saved.refuse_mode(label, mode, kernel, _reason(error, label, load))
    except NotRun as error:
        progress.skip(len(wanted))
        saved.refuse(label, _reason(error, label, load))


def _reason(error: NotRun, label: str, load: LoadModel) -> str:
    """Print and return the reason of `error`, without the label and the path of the checkpoint."""
    reason = str(error).removeprefix(f"{label}: ").replace(load.model, "the checkpoint")
    print(f"  not run: {reason}", flush=True)
    return reason


@dataclass(frozen=True)
class _Saver:
    """Saves the figures of one variant in one mode."""

    saved: SavedResults
    label: str
    mode: str

    def add(self, ready: Ready, context: int, figures: dict[str, Any]) -> None:
        self._add(self.mode, ready, context, figures)
        print(f"  at {context}: {_summary(figures)}", flush=True)

    def beside(self, ready: Ready, context: int, figures: dict[str, Any]) -> None:
        """Save the figures of `generate` from the same rounds, unless it has figures already."""
        if self.mode != PLAIN and self.saved.left(self.label, PLAIN, [context]):
            self._add(PLAIN, ready, context, figures)

    def _add(self, mode: str, ready: Ready, context: int, figures: dict[str, Any]) -> None:
        loading = {
            "kernel": ready.model_info.kernel,
            "decode": ready.model_info.decode,
            "load_s": {
                "import": round(ready.import_s, 2),
                "weights": round(ready.weights_s, 2),
                "warm_up": round(ready.warmup_s, 2),
            },
        }
        self.saved.add(self.label, mode, loading, context, figures)


async def _ask(
    sides: dict[str, Side], contexts: Sequence[int], asked: Asked, saver: _Saver
) -> None:
    """Measure `sides` (by decode mode) at each context, and save the figures.

    If one context fails, for example for lack of memory, the others are measured all the same.
    """
    for context in contexts:
        try:
            found = await _context(sides, context, asked, saver.mode)
        except NotRun as error:
            found = {saver.mode: {"not_run": str(error)}}
        saver.add(sides[saver.mode].ready, context, found[saver.mode])
        if PLAIN in found:
            saver.beside(sides[PLAIN].ready, context, found[PLAIN])


async def _context(
    sides: dict[str, Side], context: int, asked: Asked, mode: str
) -> dict[str, dict[str, Any]]:
    """Let `sides` answer in rounds at one context; return the figures of each.

    Raises NotRun if one fails.
    """
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
    held = with_process_memory(ledger, sampler.process_memory(worker.pid, ledger))
    sampler.close()
    return dataclasses.asdict(held)


def _read(shape: str, answer: Answer, ready: Ready) -> int:
    """Return the bytes read per token: weights without the input embedding, and the KV cache.

    Of the input embedding, a token reads only one row, which is neglected.
    """
    sizes = SHAPES[shape]
    width = 4 if ready.model_info.dtype == "float32" else 2
    ledger = answer.ledger or ready.ledger
    return ledger.weights - sizes.vocabulary * sizes.hidden * width + ledger.kv_cache


def _summary(figures: dict[str, Any]) -> str:
    if "not_run" in figures:
        return f"not run: {figures['not_run']}"
    middle = {name: statistics.median(figures[name]) for name in ("tok_s", "ratio", "ttft_ms")}
    return (
        f"{middle['tok_s']:.1f} tok/s, {middle['ratio']:.2f} × generate, "
        f"TTFT {middle['ttft_ms']:.0f} ms"
    )
