"""Workers that speak the real protocol from a script, and a builder with nothing to build.

Their clock is part of the script, so that figures are the same on each machine. They continue only
when the event loop runs, and wait for `gate` if a test wants to look at a moment in between.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from quantchat.checkpoints.provider import PreparedModel
from quantchat.host.job_runner import JobFailed
from quantchat.host.worker_process import Place, StartWorker, Worker, WorkerEnded
from quantchat.profile.model import AnyVariant
from quantchat.wire.messages import (
    Failed,
    Finished,
    Generate,
    Hello,
    LoadModel,
    Memory,
    Prefilled,
    Progress,
    Ready,
    ScoreTokens,
    Shutdown,
    Started,
    Stop,
    Tokens,
    TokenScores,
)
from quantchat.wire.protocol import Command, Event
from quantchat.wire.variant import Ledger, ModelInfo

MIB = 2**20


def ledger(
    process: int = 512 * MIB,
    kv_cache: int = 12 * MIB,
    device: str = "cpu",
    weights: int = 102 * MIB,
) -> Ledger:
    on_gpu = device.startswith("cuda")
    return Ledger(
        device=device,
        weights=weights,
        weights_by_dtype={"uint8": weights - 12 * MIB, "bfloat16": 12 * MIB},
        kv_cache=kv_cache,
        other_live=8 * MIB if on_gpu else -1,
        slack=20 * MIB if on_gpu else -1,
        non_torch=-1,
        process=process,
        peak=process,
        at_ns=1,
        overhead={"scales": 3 * MIB, "codebook": 13_440},
        peak_at_ns=1,
    )


def model_info(
    kernel: str = "Linear4bit nf4, double quant",
    *,
    engine: str = "bitsandbytes",
    chat_template: bool = True,
    tokenizer: str = "one",
    context_length: int = 8192,
) -> ModelInfo:
    return ModelInfo(
        engine=engine,
        model="demo:smollm2-135m-instruct",
        architecture="LlamaForCausalLM",
        kernel=kernel,
        dtype="bfloat16",
        device="cpu",
        device_name="Some processor",
        attention="sdpa",
        decode="own loop",
        context_length=context_length,
        chat_template=chat_template,
        tokenizer_hash=hashlib.sha256(tokenizer.encode()).hexdigest(),
        threads=2,
    )


def words(text: str) -> list[str]:
    """Split `text` into pieces as a tokenizer would: each word with the space before it."""
    pieces: list[str] = []
    for character in text:
        if not pieces or (character.isspace() and not pieces[-1].isspace()):
            pieces.append("")
        pieces[-1] += character
    return pieces


def likely(request: ScoreTokens, own: float = 0.61, other: float = 0.3) -> TokenScores:
    """Give each requested token probability `own`, and each further token probability `other`."""
    asked = request.ids[request.first :]
    return TokenScores(
        request.number,
        logprobs=[math.log(own)] * len(asked),
        pieces=[f"<{token}>" for token in asked],
        ranks=[0] * len(asked),
        also=[math.log(other)] * len(request.also),
    )


@dataclass
class Script:
    """The behaviour of one worker. Anything can be changed while it runs."""

    model_info: ModelInfo = field(default_factory=model_info)
    note: str = ""
    building: list[Progress] = field(default_factory=list)
    """Stages of the builder, before any worker is started."""
    loading: list[Progress] = field(default_factory=list)
    building_fails: Failed | None = None
    load_times_s: tuple[float, float, float] = (2.1, 1.0, 0.3)
    """Of the imports, the weights and the warm-up."""
    loading_fails: Failed | None = None
    start_fails: Exception | None = None
    dies_loading: int | None = None
    """Exit status with which the worker ends in place of becoming ready."""
    answer: Callable[[Generate], str] = lambda request: "The capital of France is **Paris**."
    thought: Callable[[Generate], str] = lambda request: ""
    """What it thinks before it answers."""
    token_ms: float = 20.0
    ttft_ms: float = 150.0
    cut: Callable[[str], list[str]] = words
    """How an answer becomes tokens."""
    batch: int = 1
    """Tokens in one event."""
    token_scores: Callable[[ScoreTokens], TokenScores] = lambda request: likely(request)
    scoring_gate: asyncio.Event | None = None
    """Scoring waits here, or until another command comes, if there is one."""
    reason: str = "eos"
    prompt_tokens: int = 40
    answer_fails: Failed | None = None
    fails_after: int = 0
    """Tokens before `answer_fails`."""
    dies_after: int | None = None
    """Tokens after which the worker is gone."""
    died_with: int = -9
    holds_after: int | None = None
    """Tokens after which the answer waits for `gate` (or to be stopped)."""
    deaf: bool = False
    """It ignores commands to stop."""
    process: int = 512 * MIB
    weights: int = 102 * MIB
    device: str = "cpu"
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    building_gate: asyncio.Event | None = None
    """The builder waits here after its last stage, if there is one."""
    loading_gate: asyncio.Event | None = None
    commands: list[Command] = field(default_factory=list)
    """All commands that were sent, for the test to look at."""
    log: str = ""
    """What its libraries print."""
    closed: bool = False
    lives: int = 0
    """How many workers were started."""


class ScriptedWorker:
    """Implements `host.worker_process.Worker` from a `Script`."""

    def __init__(self, script: Script, log: Path, pid: int) -> None:
        self._script = script
        self._log = log
        self._pid = pid
        self._events: asyncio.Queue[Event | int] = asyncio.Queue()
        self._stopped: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._overtaken = asyncio.Event()
        self._now_ns = 1_000_000_000
        self._events.put_nowait(Hello(1, pid, "3.11"))

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def log(self) -> Path:
        return self._log

    def send(self, command: Command) -> None:
        self._script.commands.append(command)
        self._overtaken.set()
        if isinstance(command, ScoreTokens):
            self._overtaken = asyncio.Event()
            self._tasks.append(asyncio.ensure_future(self._score_tokens(command, self._overtaken)))
        if isinstance(command, LoadModel):
            self._tasks.append(asyncio.ensure_future(self._load()))
        elif isinstance(command, Generate):
            self._tasks.append(asyncio.ensure_future(self._generate(command)))
        elif isinstance(command, Stop) and not self._script.deaf:
            self._stopped.add(command.turn)
            self._script.gate.set()
        elif isinstance(command, Shutdown):
            self._events.put_nowait(0)

    async def events(self) -> AsyncIterator[Event]:
        while True:
            event = await self._events.get()
            if isinstance(event, int):
                raise WorkerEnded(event, self._log)
            yield event

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._script.closed = True

    async def _load(self) -> None:
        script = self._script
        for progress in script.loading:
            self._events.put_nowait(progress)
            await asyncio.sleep(0)
        if script.loading_gate is not None:
            await script.loading_gate.wait()
        if script.dies_loading is not None:
            self._events.put_nowait(script.dies_loading)
        elif script.loading_fails is not None:
            self._events.put_nowait(script.loading_fails)
        else:
            self._events.put_nowait(
                Ready(
                    script.model_info,
                    ledger(script.process, device=script.device, weights=script.weights),
                    *script.load_times_s,
                    script.note,
                )
            )

    async def _score_tokens(self, request: ScoreTokens, cancelled: asyncio.Event) -> None:
        if self._script.scoring_gate is not None:
            waits = [
                asyncio.ensure_future(e.wait()) for e in (self._script.scoring_gate, cancelled)
            ]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        scores = self._script.token_scores(request)
        if cancelled.is_set():
            scores = TokenScores(request.number, problem="cancelled by another command")
        self._events.put_nowait(scores)

    def _ledger(self, said: int = 0) -> Ledger:
        script = self._script
        return ledger(script.process, (12 + said // 10) * MIB, script.device, script.weights)

    async def _generate(self, request: Generate) -> None:
        script, turn, put = self._script, request.turn, self._events.put_nowait
        self._now_ns += 1_000_000_000
        put(Started(turn, self._now_ns, script.prompt_tokens, 0))
        put(Prefilled(turn, script.prompt_tokens, script.prompt_tokens, self._now_ns + 100_000_000))
        self._now_ns += int((script.ttft_ms - script.token_ms) * 1e6)
        text = script.answer(request)
        thoughts = script.cut(script.thought(request))
        pieces = [*([""] * len(thoughts)), *script.cut(text)][: request.max_new_tokens]
        reason, said = script.reason, 0
        while said < len(pieces):
            if script.holds_after is not None and said >= script.holds_after:
                await script.gate.wait()
            if turn in self._stopped:
                reason = "stop"
                break
            if script.dies_after is not None and said >= script.dies_after:
                put(script.died_with)
                return
            if script.answer_fails is not None and said >= script.fails_after:
                break
            batch = pieces[said : said + script.batch]
            times = []
            for _ in batch:
                self._now_ns += int(script.token_ms * 1e6)
                times.append(self._now_ns)
            thought = (thoughts[said : said + len(batch)] + [""] * len(batch))[: len(batch)]
            whole = [t or p for t, p in zip(thought, batch, strict=True)]
            ids = [
                int(hashlib.sha256(p.encode("utf-8", "replace")).hexdigest()[:4], 16) for p in whole
            ]
            put(Tokens(turn, ids, batch, times, thought if any(thought) else []))
            said += len(batch)
            await asyncio.sleep(0)
        if script.answer_fails is not None:
            failure = script.answer_fails
            put(
                Failed(
                    failure.kind, failure.reason, failure.hint, turn, failure.needed, failure.free
                )
            )
            return
        put(Memory(self._ledger(said)))
        text, thoughts_text = "".join(pieces[:said]), "".join(thoughts[:said])
        put(
            Finished(
                turn,
                reason,
                said,
                text,
                self._now_ns,
                thoughts=thoughts_text,
                thought_tokens=min(said, len(thoughts)),
                raw=f"<think>{thoughts_text}</think>{text}" if thoughts_text else "",
            )
        )


@dataclass
class ScriptedProvider:
    """A `checkpoints.provider.CheckpointProvider` that plays the building stages of each script."""

    scripts: dict[str, Script]

    async def prepare(
        self, spec: AnyVariant, on_progress: Callable[[Progress], None]
    ) -> PreparedModel:
        script = self.scripts[spec.label]
        for progress in script.building:
            on_progress(progress)
            await asyncio.sleep(0)
        if script.building_gate is not None:
            await script.building_gate.wait()
        if script.building_fails is not None:
            raise JobFailed(script.building_fails)
        return PreparedModel(spec.model)


def starter(scripts: dict[str, Script], folder: Path) -> StartWorker:
    """Return a function that starts a scripted worker by label; logs are in `folder`."""

    async def start(place: Place) -> Worker:
        script = scripts[place.label]
        if script.start_fails is not None:
            raise script.start_fails
        script.lives += 1
        script.closed = False
        slug = re.sub(r"[^a-z0-9]+", "-", place.label.lower())
        log = folder / f"{slug}-{script.lives}.log"
        log.write_text(f"loading {place.label}\n{script.log}", errors="surrogatepass")
        return ScriptedWorker(script, log, pid=2**30 + script.lives)

    return start
