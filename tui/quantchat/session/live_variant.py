"""A variant that lives: prepared, loaded, answering, or failed with its reason."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from quantchat.checkpoints.maker import Maker
from quantchat.engines.registry import engine_of
from quantchat.errors import UserError
from quantchat.estimate.model_files import ModelFiles
from quantchat.host.job_runner import JobFailed
from quantchat.host.log_news import LogNews
from quantchat.host.screen_log import log_exception
from quantchat.host.worker_process import Place, StartWorker, Worker, WorkerEnded, interpreter
from quantchat.profile.model import AnyVariant, Generation
from quantchat.session import failures
from quantchat.session.conversation import Answer
from quantchat.session.requests import load_request
from quantchat.system.oom import oom_kills
from quantchat.wire.codec import ProtocolError
from quantchat.wire.messages import (
    Alive,
    Event,
    Failed,
    Generate,
    Memory,
    Progress,
    Ready,
    ScoreTokens,
    Stop,
    StopScoring,
    TokenScores,
)
from quantchat.wire.variant import Ledger, Resolved


class State(Enum):
    """Where a variant is in its life."""

    IDLE = "idle"
    PREPARING = "preparing"
    LOADING = "loading"
    READY = "ready"
    ANSWERING = "answering"
    FAILED = "failed"


SILENT_S = 20.0
"""A worker that sends no sign of life for this long is said not to respond.

Ten times the rate of the signs: a library may hold the interpreter for long, so nothing is ended on
a suspicion. It is told, and the user decides.
"""

STUCK_S = 60.0
"""An answer that did not grow for this long, though its worker lives: a device may hang."""

LOST_S = 60.0
"""A measurement, which nobody may be watching, ends a worker that sent nothing for this long while
it answered."""

LOST_LOADING_S = 300.0
"""The same while it loads: a library read from a slow disk holds the interpreter for long."""

HUNG_S = 1800.0
"""A measurement ends a worker whose answer did not grow for this long. So long, since a server
tells nothing of how far it has read a long prompt."""


HEADERS_S = 5.0
"""The headers of a checkpoint that was just loaded are not waited for any longer than this."""


class LiveVariant:
    """One variant of a comparison with its worker, if it has one. All state is for reading."""

    def __init__(
        self,
        spec: AnyVariant,
        *,
        maker: Maker,
        start: StartWorker,
        on_change: Callable[[LiveVariant], None],
        settings: Callable[[], Generation] | None = None,
    ) -> None:
        """`settings` tells how answers are generated now: a server is tried with that."""
        self.spec = spec
        self.label = spec.label
        self.state = State.IDLE
        self.progress: Progress | None = None
        """The stage under way while PREPARING or LOADING."""
        self.ready: Ready | None = None
        """What really runs, and what loading cost, once READY."""
        self.load_s = 0.0
        """Seconds from the worker's start until it was ready."""
        self.files: ModelFiles | None = None
        """Headers of what was loaded last, for snapshots; None where they could not be read."""
        self.ledger: Ledger | None = None
        self.failure: Failed | None = None
        """The reason while FAILED."""
        self._maker = maker
        self._start = start
        self._on_change = on_change
        self._settings = settings
        self._life: asyncio.Task[None] | None = None
        self._ending = False
        self._worker: Worker | None = None
        self._log: Path | None = None
        self._news: LogNews | None = None
        self._turn: int | None = None
        self._answer: Answer | None = None
        """The one under way: none that is over."""
        self._answered: asyncio.Event = asyncio.Event()
        self._scoring: asyncio.Future[TokenScores] | None = None
        self._scored_number = 0
        """Number of the `ScoreTokens` that `_scoring` waits for."""
        self._preempts = False
        self._heard_s = 0.0
        """When the worker last sent anything, by our monotonic clock."""
        self._grew_s = 0.0
        """When the answer under way last grew."""
        self._asked_s = 0.0
        """When the worker was last asked for something."""

    # ------------------------------------------------------------ what others read

    @property
    def resolved(self) -> Resolved | None:
        """What really runs, once loaded."""
        return self.ready.resolved if self.ready else None

    @property
    def pid(self) -> int | None:
        """Of the worker process, while there is one."""
        return self._worker.pid if self._worker else None

    @property
    def log(self) -> Path | None:
        """File with what the libraries printed; it outlives the worker."""
        return self._log

    def silence(self, now_s: float) -> Failed | None:
        """What to say of a worker that seems to hang, at `now_s` of the monotonic clock."""
        if self._worker is None:
            return None
        silent, stuck = now_s - self._heard_s, now_s - self._grew_s
        if silent > SILENT_S:
            reason = f"no sign of life from the worker for {silent:.0f} s"
        elif self.state is State.ANSWERING and stuck > STUCK_S:
            reason = f"the answer has not grown for {stuck:.0f} s"
        else:
            return None
        return Failed("not_responding", reason, "wait if it may be busy, or end it and load anew")

    def overdue(self, now_s: float) -> Failed | None:
        """Why a measurement ends the worker at `now_s` of the monotonic clock, if it does."""
        if self._worker is None or not self.at_work:
            return None
        silent, stuck = now_s - max(self._heard_s, self._asked_s), now_s - self._grew_s
        if silent > (LOST_LOADING_S if self.state is State.LOADING else LOST_S):
            reason = f"no sign of life from the worker for {silent:.0f} s: it was ended"
        elif self.state is not State.LOADING and stuck > HUNG_S:
            reason = f"the answer has not grown for {stuck:.0f} s: the worker was ended"
        else:
            return None
        return Failed("not_responding", reason, "look at the worker's log, and measure again")

    def excuse(self, now_s: float) -> None:
        """Count its silence from `now_s`: what it sent before could not be read."""
        self._asked_s = self._grew_s = now_s

    @property
    def at_work(self) -> bool:
        """Whether somebody waits for it: it is loading, answering, or reading given tokens."""
        scoring = self._scoring is not None and not self._scoring.done()
        return scoring or self.state in (State.LOADING, State.ANSWERING)

    # ------------------------------------------------------------ life

    def begin(self) -> None:
        """Prepare and load, unless that is done or under way. Returns at once."""
        before = self._life
        over = before is None or before.done() or self._ending or self.state is State.FAILED
        if not over:
            return
        self._ending = False
        self.failure = None
        self._life = asyncio.ensure_future(self._live(before))

    def retry(self) -> None:
        """Load anew what has failed, or end what does not respond and load it anew."""
        if self.silence(time.monotonic()) is not None:
            self.end()
        self.begin()

    def end(self) -> None:
        """End the worker and give its memory back; `begin` loads it again. Returns at once."""
        if self._life is not None:
            self._ending = True
            self._life.cancel()

    def give_up(self, failure: Failed) -> None:
        """End the worker because of `failure`, which is what is told of it. Returns at once."""
        self._fail(failure)
        self._end_scoring(failure.reason)
        self.end()

    async def close(self) -> None:
        """End the worker; returns when it is gone."""
        self.end()
        if self._life is not None:
            await asyncio.gather(self._life, return_exceptions=True)

    async def _live(self, before: asyncio.Task[None] | None) -> None:
        """From preparing to the end of the worker, in one task that can be cancelled anywhere.

        `before` is the life before this one, whose memory must be free first.
        """
        if before is not None:
            await asyncio.wait([before])
        killed_before = oom_kills()
        try:
            self._become(State.PREPARING)
            python = interpreter(self.spec.python, self.spec.env)
            prepared = await self._maker.prepare(self.spec, self._progressed)
            self._become(State.LOADING)
            began = time.monotonic()
            self._worker = await self._start(Place(self.label, python))
            self._log = self._worker.log
            self._heard_s = time.monotonic()
            settings = self._settings() if self._settings else None
            self._worker.send(load_request(self.spec, prepared, settings))
            async for event in self._worker.events():
                self._heard_s = time.monotonic()
                if isinstance(event, Ready):
                    self.load_s = time.monotonic() - began - event.fetch_s
                    # What the maker knows of the base no worker can see.
                    note = "; ".join(part for part in (prepared.note, event.note) if part)
                    self.ready = dataclasses.replace(event, note=note)
                    self.ledger = event.ledger
                    self.files = await self._read_files(event.resolved)
                    self._become(State.READY)
                elif isinstance(event, Failed) and event.turn < 0:
                    self._fail(event)
                    return
                else:
                    self._heard(event)
        except (JobFailed, UserError, OSError) as error:
            self._fail(failures.failure_before_start(error))
        except WorkerEnded as error:
            # Only the kernel knows whether memory was the reason.
            self._fail(failures.ended(error, memory_ran_out=oom_kills() != killed_before))
        except ProtocolError as error:
            self._fail(Failed("internal", f"the worker sent an invalid message: {error}", "retry"))
        except Exception as error:  # noqa: BLE001 - whatever it was, the column must say so
            log_exception()
            self._fail(failures.unforeseen(error))
        finally:
            worker, self._worker = self._worker, None
            if worker is not None:
                await asyncio.shield(worker.close())
            self.ready = None
            self.ledger = None
            self.progress = None
            if self.state is not State.FAILED:
                self._become(State.IDLE)
            self._finish_answer(Failed("worker_ended", "the variant was ended"))
            self._end_scoring("the variant was ended")

    async def _read_files(self, resolved: Resolved) -> ModelFiles | None:
        """Read the headers of the checkpoint that was loaded; None where that takes too long.

        In a thread that nothing waits for: the share that it lies on may hang from now on.
        """
        if engine_of(self.spec).is_server:
            return None
        loop = asyncio.get_running_loop()
        files: asyncio.Future[ModelFiles | None] = loop.create_future()

        def give(found: ModelFiles | None) -> None:
            if not files.done():  # cancelled: nobody waits any more
                files.set_result(found)

        def read() -> None:
            from quantchat.checkpoints.variant_files import files_of  # which no first frame needs

            found = None
            try:
                found = files_of(self.spec, resolved)
            except Exception:  # noqa: BLE001 - a snapshot lacks one line then
                log_exception()
            with contextlib.suppress(RuntimeError):  # the loop is closed by now
                loop.call_soon_threadsafe(give, found)

        threading.Thread(target=read, name="checkpoint-headers", daemon=True).start()
        await asyncio.wait([files], timeout=HEADERS_S)
        return files.result() if files.done() else None

    def _become(self, state: State) -> None:
        self.state = state
        if state not in (State.PREPARING, State.LOADING):
            self.progress = None
        self._on_change(self)

    def _progressed(self, progress: Progress) -> None:
        is_new = self.progress is None or self.progress.stage != progress.stage
        if is_new and self._log is not None:
            self._news = LogNews(self._log)
        self.progress = progress
        self._on_change(self)

    def _fail(self, failure: Failed) -> None:
        self.failure = failure
        self.state = State.FAILED  # first, lest the end of the answer shows as READY
        self._finish_answer(failure)
        self._become(State.FAILED)

    # ------------------------------------------------------------ answers

    async def answer(self, request: Generate, answer: Answer) -> None:
        """Send `request` and fill `answer` until it is over. The variant must be READY."""
        self._answer, self._answered = answer, asyncio.Event()
        worker = self._worker
        if worker is None or self.state is not State.READY:
            self._finish_answer(self.failure or Failed("worker_ended", "the variant is not loaded"))
            return
        answer.request, answer.ready = request, self.ready
        self._turn = request.turn
        self._asked_s = self._grew_s = time.monotonic()
        self._become(State.ANSWERING)
        worker.send(request)
        await self._answered.wait()

    def stop(self) -> None:
        """Ask the worker to stop decoding; the answer ends with reason `stop`."""
        if self._worker is not None and self.state is State.ANSWERING and self._turn is not None:
            self._worker.send(Stop(self._turn))

    # ------------------------------------------------------------ teacher forcing

    async def score_tokens(self, request: ScoreTokens) -> TokenScores:
        """Let the worker score tokens. The variant stays READY meanwhile; see `preempt`."""
        worker = self._worker
        if worker is None or self.state is not State.READY:
            return TokenScores(request.number, problem="the variant is not ready")
        self._scoring = asyncio.get_running_loop().create_future()
        self._scored_number = request.number
        self._preempts = False
        self._asked_s = self._grew_s = time.monotonic()
        worker.send(request)
        return await self._scoring

    def preempt(self) -> None:
        """Make the running `score_tokens`, if any, end soon and without figures."""
        if self._worker is None or self._scoring is None or self._scoring.done():
            return
        if not self._preempts:
            self._preempts = True
            self._worker.send(StopScoring())

    def _scored(self, scores: TokenScores) -> None:
        if self._scoring is not None and not self._scoring.done():
            self._scoring.set_result(scores)

    def _end_scoring(self, problem: str) -> None:
        self._scored(TokenScores(self._scored_number, problem=problem))

    def _heard(self, event: Event) -> None:
        match event:
            case Progress():
                self._progressed(event)
            case Alive() if self.progress and self._news:
                if line := self._news.line():
                    self._progressed(dataclasses.replace(self.progress, detail=line))
            case Memory():
                self.ledger = event.ledger
            case TokenScores():
                self._scored(event)
            case _ if self._answer is not None:
                if not isinstance(event, Alive):
                    self._grew_s = self._heard_s
                self._answer.grow(event, counted_apart=engine_of(self.spec).is_server)
                if self._answer.over:
                    self._answer_over(self._answer)

    def _finish_answer(self, failure: Failed) -> None:
        """End the answer under way, if there is one, with `failure`; what was said is kept."""
        if self._answer is not None:
            self._answer.fail(failure)
            self._answer_over(self._answer)

    def _answer_over(self, answer: Answer) -> None:
        answer.ledger = self.ledger
        self._answer = None
        self._answered.set()
        if self.state is State.ANSWERING:
            self._become(State.READY)
