"""A variant and its worker through all states: preparing, loading, ready, answering, failed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from quantchat.checkpoints.provider import CheckpointProvider
from quantchat.engines.registry import engine_of
from quantchat.errors import UserError
from quantchat.estimate.model_files import ModelFiles
from quantchat.host.job_runner import JobFailed
from quantchat.host.log_news import LogNews
from quantchat.host.screen_log import log_exception
from quantchat.host.worker_process import Place, StartWorker, Worker, WorkerEnded
from quantchat.profile.model import AnyVariant, Generation
from quantchat.session import failures
from quantchat.session.conversation import Answer
from quantchat.session.requests import load_request
from quantchat.system.oom import oom_kills
from quantchat.wire.codec import ProtocolError
from quantchat.wire.messages import (
    Alive,
    Failed,
    Generate,
    Memory,
    Note,
    Progress,
    Ready,
    ScoreTokens,
    Stop,
    StopScoring,
    TokenScores,
)
from quantchat.wire.protocol import Event
from quantchat.wire.variant import Ledger, ModelInfo


class State(Enum):
    """The state of a variant."""

    IDLE = "idle"
    PREPARING = "preparing"
    LOADING = "loading"
    READY = "ready"
    ANSWERING = "answering"
    FAILED = "failed"


SILENT_S = 20.0
"""Seconds without a heartbeat after which a worker is reported as not responding.

It is ten times the interval of the heartbeats, because a library may block the interpreter for
long. The worker is not ended: the user decides.
"""

STUCK_S = 60.0
"""Seconds without a new token after which an answer is reported as stuck, because a device may
hang."""

LOST_S = 60.0
"""Seconds without any message after which a measurement ends an answering worker: perhaps no user
is there to decide."""

LOST_LOADING_S = 300.0
"""The same limit, in s, while loading: importing a library from a slow disk blocks the interpreter.
"""

HUNG_S = 1800.0
"""Seconds without a new token after which a measurement ends a worker. It is this long because
servers do not report their progress on a long prompt."""


HEADERS_S = 5.0
"""Longest wait, in s, for the headers of a checkpoint that was just loaded."""


class LiveVariant:
    """One variant of a comparison, with its worker if it has one.

    Other code only reads the attributes.
    """

    def __init__(
        self,
        spec: AnyVariant,
        *,
        provider: CheckpointProvider,
        start: StartWorker,
        on_change: Callable[[LiveVariant], None],
        settings: Callable[[], Generation] | None = None,
    ) -> None:
        """Create the variant without loading it.

        `settings` returns the sampling settings for the trial requests to a server, which find out
        the parameters that it accepts.
        """
        self.spec = spec
        self.label = spec.label
        self.state = State.IDLE
        self.progress: Progress | None = None
        """The current stage while PREPARING or LOADING."""
        self.ready: Ready | None = None
        """What actually runs, and the load times, once READY."""
        self.load_s = 0.0
        """Seconds from the worker's start until it was ready."""
        self.files: ModelFiles | None = None
        """Headers of the last loaded checkpoint, for snapshots; None if they cannot be read."""
        self.ledger: Ledger | None = None
        """The memory ledger that the worker reported last; None without a loaded model."""
        self.failure: Failed | None = None
        """The reason while FAILED."""
        self._provider = provider
        self._start = start
        self._on_change = on_change
        self._settings = settings
        self._running: asyncio.Task[None] | None = None
        self._ending = False
        self._worker: Worker | None = None
        self._log: Path | None = None
        self._news: LogNews | None = None
        self._turn: int | None = None
        self._answer: Answer | None = None
        """The running answer, or None."""
        self._answered: asyncio.Event = asyncio.Event()
        self._scoring: asyncio.Future[TokenScores] | None = None
        self._scored_number = 0
        """Number of the `ScoreTokens` that `_scoring` waits for."""
        self._preempted = False
        self._last_message_s = 0.0
        """When the worker last sent a message, by the monotonic clock of this process."""
        self._last_growth_s = 0.0
        """When the running answer last grew."""
        self._last_request_s = 0.0
        """When the last request was sent to the worker."""

    # ------------------------------------------------------------ state for others

    @property
    def model_info(self) -> ModelInfo | None:
        """What actually runs, once loaded."""
        return self.ready.model_info if self.ready else None

    @property
    def pid(self) -> int | None:
        """Process id of the worker, or None."""
        return self._worker.pid if self._worker else None

    @property
    def log(self) -> Path | None:
        """Log file with the output of the worker's libraries; stays after the worker's end."""
        return self._log

    def suspected_hang(self, now_s: float) -> Failed | None:
        """Return why the worker seems to hang at `now_s` (monotonic clock), or None."""
        if self._worker is None:
            return None
        silent, stuck = now_s - self._last_message_s, now_s - self._last_growth_s
        if silent > SILENT_S:
            reason = f"the worker has not sent a message for {silent:.0f} s"
        elif self.state is State.ANSWERING and stuck > STUCK_S:
            reason = f"the answer has not grown for {stuck:.0f} s"
        else:
            return None
        return Failed("not_responding", reason, "wait if it may be busy, or reload the variant")

    def reason_to_end(self, now_s: float) -> Failed | None:
        """Return why a measurement must end the worker at `now_s` (monotonic clock), or None."""
        if self._worker is None or not self.busy:
            return None
        silent, stuck = (
            now_s - max(self._last_message_s, self._last_request_s),
            now_s - self._last_growth_s,
        )
        if silent > (LOST_LOADING_S if self.state is State.LOADING else LOST_S):
            reason = f"the worker sent no message for {silent:.0f} s, so it was ended"
        elif self.state is not State.LOADING and stuck > HUNG_S:
            reason = f"the answer did not grow for {stuck:.0f} s, so the worker was ended"
        else:
            return None
        return Failed("not_responding", reason, "see the worker's log, and measure again")

    def reset_silence(self, now_s: float) -> None:
        """Count silence only from `now_s` on, because this process was suspended before."""
        self._last_request_s = self._last_growth_s = now_s

    @property
    def will_be_ready(self) -> bool:
        """Whether the variant is being prepared or loaded, or soon will be."""
        begun = self._running is not None and not self._running.done() and not self._ending
        over = self.failure is not None or self.state in (State.READY, State.ANSWERING)
        return begun and not over

    @property
    def busy(self) -> bool:
        """Whether a caller waits for the variant: it is loading, answering or scoring tokens."""
        scoring = self._scoring is not None and not self._scoring.done()
        return scoring or self.state in (State.LOADING, State.ANSWERING)

    # ------------------------------------------------------------ loading and ending

    def begin(self) -> None:
        """Start to prepare and load, unless that was started already. Returns at once."""
        before = self._running
        over = before is None or before.done() or self._ending or self.state is State.FAILED
        if not over:
            return
        self._ending = False
        self.failure = None
        self._running = asyncio.ensure_future(self._run(before))

    def retry(self) -> None:
        """Reload the variant after a failure; if it does not respond, end its worker first."""
        if self.suspected_hang(time.monotonic()) is not None:
            self.end()
        self.begin()

    def end(self) -> None:
        """End the worker and free its memory; `begin` loads it again. Returns at once."""
        if self._running is not None:
            self._ending = True
            self._running.cancel()

    def end_with(self, failure: Failed) -> None:
        """End the worker and report `failure` as the reason. Returns at once."""
        self._fail(failure)
        self._end_scoring(failure.reason)
        self.end()

    async def close(self) -> None:
        """End the worker and wait until it has ended."""
        self.end()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self, before: asyncio.Task[None] | None) -> None:
        """Prepare, load and serve until the worker ends; may be cancelled at any point.

        `before` is the previous such task, which must have freed its memory first.
        """
        if before is not None:
            await asyncio.wait([before])
        killed_before = oom_kills()
        try:
            self._set_state(State.PREPARING)
            python = self.spec.python
            if self.spec.env:
                from quantchat.host.environments import interpreter  # late: seldom needed

                python = interpreter(None, self.spec.env)
            prepared = await self._provider.prepare(self.spec, self._set_progress)
            self._set_state(State.LOADING)
            began = time.monotonic()
            self._worker = await self._start(Place(self.label, python))
            self._log = self._worker.log
            self._last_message_s = time.monotonic()
            settings = self._settings() if self._settings else None
            self._worker.send(load_request(self.spec, prepared, settings))
            async for event in self._worker.events():
                self._last_message_s = time.monotonic()
                if isinstance(event, Ready):
                    self.load_s = time.monotonic() - began - event.fetch_s
                    self.ready = _with_notes(event, prepared.note, event.note)
                    self.ledger = event.ledger
                    self.files = await self._read_files(event.model_info)
                    self._set_state(State.READY)
                elif isinstance(event, Note) and self.ready is not None:
                    self.ready = _with_notes(self.ready, prepared.note, event.note)
                    self._on_change(self)
                elif isinstance(event, Failed) and event.turn < 0:
                    self._fail(event)
                    return
                else:
                    self._handle(event)
        except (JobFailed, UserError, OSError) as error:
            self._fail(failures.failure_before_start(error))
        except WorkerEnded as error:
            # Only the kernel's counter says whether the worker was killed because memory ran out.
            self._fail(failures.worker_ended(error, memory_ran_out=oom_kills() != killed_before))
        except ProtocolError as error:
            reason = f"the worker sent an invalid message: {error}"
            self._fail(Failed("internal", reason, "reload the variant"))
        except Exception as error:  # noqa: BLE001 - the column must show any failure
            log_exception()
            self._fail(failures.unexpected_error(error))
        finally:
            worker, self._worker = self._worker, None
            if worker is not None:
                await asyncio.shield(worker.close())
            self.ready = None
            self.ledger = None
            self.progress = None
            if self.state is not State.FAILED:
                self._set_state(State.IDLE)
            self._finish_answer(Failed("worker_ended", "the variant was ended"))
            self._end_scoring("the variant was ended")

    async def _read_files(self, info: ModelInfo) -> ModelFiles | None:
        """Read the headers of the loaded checkpoint; None if that takes over `HEADERS_S`.

        Reads in a daemon thread, because a network file system may hang.
        """
        if engine_of(self.spec).is_server:
            return None
        loop = asyncio.get_running_loop()
        files: asyncio.Future[ModelFiles | None] = loop.create_future()

        def give(found: ModelFiles | None) -> None:
            if not files.done():  # it is done if the task was cancelled
                files.set_result(found)

        def read() -> None:
            # Import late, so that the screen appears sooner.
            from quantchat.checkpoints.variant_files import files_of

            found = None
            try:
                found = files_of(self.spec, info)
            except Exception:  # noqa: BLE001 - then a snapshot lacks the estimate
                log_exception()
            with contextlib.suppress(RuntimeError):  # the loop is closed by now
                loop.call_soon_threadsafe(give, found)

        threading.Thread(target=read, name="checkpoint-headers", daemon=True).start()
        await asyncio.wait([files], timeout=HEADERS_S)
        return files.result() if files.done() else None

    def _set_state(self, state: State) -> None:
        self.state = state
        if state not in (State.PREPARING, State.LOADING):
            self.progress = None
        self._on_change(self)

    def _set_progress(self, progress: Progress) -> None:
        is_new = self.progress is None or self.progress.stage != progress.stage
        if is_new and self._log is not None:
            self._news = LogNews(self._log)
        self.progress = progress
        self._on_change(self)

    def _fail(self, failure: Failed) -> None:
        self.failure = failure
        self.state = State.FAILED  # set this first, else `_answer_over` would set READY
        self._finish_answer(failure)
        self._set_state(State.FAILED)

    # ------------------------------------------------------------ answers

    async def answer(self, request: Generate, answer: Answer) -> None:
        """Send `request` and fill `answer` until it is over. The variant should be READY."""
        self._answer, self._answered = answer, asyncio.Event()
        worker = self._worker
        if worker is None or self.state is not State.READY:
            self._finish_answer(self.failure or Failed("worker_ended", "the variant is not loaded"))
            return
        answer.request, answer.ran_on = request, self.ready
        self._turn = request.turn
        self._last_request_s = self._last_growth_s = time.monotonic()
        self._set_state(State.ANSWERING)
        worker.send(request)
        await self._answered.wait()

    def stop(self) -> None:
        """Ask the worker to stop decoding; the answer ends with reason `stop`."""
        if self._worker is not None and self.state is State.ANSWERING and self._turn is not None:
            self._worker.send(Stop(self._turn))

    # ------------------------------------------------------------ teacher forcing

    async def score_tokens(self, request: ScoreTokens) -> TokenScores:
        """Let the worker score given tokens; the state stays READY meanwhile (see `preempt`)."""
        worker = self._worker
        if worker is None or self.state is not State.READY:
            return TokenScores(request.number, problem="the variant is not ready")
        self._scoring = asyncio.get_running_loop().create_future()
        self._scored_number = request.number
        self._preempted = False
        self._last_request_s = self._last_growth_s = time.monotonic()
        worker.send(request)
        return await self._scoring

    def preempt(self) -> None:
        """Cancel a running `score_tokens`, which then returns soon and without a result."""
        if self._worker is None or self._scoring is None or self._scoring.done():
            return
        if not self._preempted:
            self._preempted = True
            self._worker.send(StopScoring())

    def _set_scores(self, scores: TokenScores) -> None:
        if self._scoring is not None and not self._scoring.done():
            self._scoring.set_result(scores)

    def _end_scoring(self, problem: str) -> None:
        self._set_scores(TokenScores(self._scored_number, problem=problem))

    def _handle(self, event: Event) -> None:
        match event:
            case Progress():
                self._set_progress(event)
            case Alive() if self.progress and self._news:
                if line := self._news.line():
                    self._set_progress(dataclasses.replace(self.progress, detail=line))
            case Memory():
                self.ledger = event.ledger
            case TokenScores():
                self._set_scores(event)
            case _ if self._answer is not None:
                if not isinstance(event, Alive):
                    self._last_growth_s = self._last_message_s
                self._answer.grow(event, from_server=engine_of(self.spec).is_server)
                if self._answer.over:
                    self._answer_over(self._answer)

    def _finish_answer(self, failure: Failed) -> None:
        """End a running answer with `failure`; its text so far stays."""
        if self._answer is not None:
            self._answer.fail(failure)
            self._answer_over(self._answer)

    def _answer_over(self, answer: Answer) -> None:
        answer.ledger = self.ledger
        self._answer = None
        self._answered.set()
        if self.state is State.ANSWERING:
            self._set_state(State.READY)


def _with_notes(ready: Ready, checkpoint_note: str, running_note: str) -> Ready:
    """Return `ready` with the notes on its checkpoint and on how it runs.

    The worker reports only the second one.
    """
    return dataclasses.replace(ready, note="; ".join(filter(None, (checkpoint_note, running_note))))
