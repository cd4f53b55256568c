"""The worker's main loop: carries out one command after the other.

It runs in the main thread, which is the only thread that runs torch.
"""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, get_args

from quantchat.wire.codec import ProtocolError
from quantchat.wire.messages import (
    FETCHING,
    IMPORTING,
    VERSION,
    WARMING_UP,
    WEIGHTS,
    Generate,
    Hello,
    LoadModel,
    LoadStage,
    Memory,
    Progress,
    Ready,
    ScoreTokens,
    TokenScores,
)
from quantchat.wire.redaction import guard_streams
from quantchat.worker import parent_watchdog
from quantchat.worker.failures import DEVICE_FAILED, Refused, describe, log
from quantchat.worker.inbox import Inbox, Request
from quantchat.worker.outbox import ALIVE_S, Outbox
from quantchat.worker.transformers_index import reuse_index

if TYPE_CHECKING:
    from quantchat.wire.jobs import AnyJob
    from quantchat.worker.decode.loop_decoder import LoopDecoder
    from quantchat.worker.servers.opening import Opener
    from quantchat.worker.servers.remote import RemoteDecoder

FLUSH_S = 5.0
"""Longest wait, in seconds, for the last events to be written when the worker ends."""


def main(commands: int, events: int, life: int, parent: int) -> int:
    """Carry out the commands from the pipe `commands`, and send events to the pipe `events`.

    The pipes are file descriptors. `life` is a third pipe, which only the parent process holds open
    at its other end. `parent` is the id of this process. When it ends, this pipe is closed, and
    the worker ends too. Returns the exit status.
    """
    began = time.perf_counter()
    for fd in (commands, events):
        os.set_inheritable(fd, False)  # a compiler started by a library must not hold them open
    parent_watchdog.watch(life)
    parent_watchdog.die_with(parent)
    guard_streams()
    reuse_index()
    outbox = Outbox(events, ALIVE_S)
    outbox.send(Hello(VERSION, os.getpid(), platform.python_version()))

    def report(error: BaseException) -> None:
        outbox.send(describe(error))
        outbox.flush(FLUSH_S)

    try:
        _Server(Inbox(commands, report), outbox, began).run()
    finally:
        outbox.flush(FLUSH_S)
    return 0


class _Server:
    def __init__(self, inbox: Inbox, outbox: Outbox, began: float) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._began = began
        self._decoder: LoopDecoder | RemoteDecoder | None = None
        self._opener: Opener | None = None

    def run(self) -> None:
        while True:
            try:
                command = self._inbox.next()
            except ProtocolError as error:
                self._outbox.send(describe(error))
                continue
            turn = command.turn if isinstance(command, Generate) else -1
            loading = command.model if isinstance(command, LoadModel) else ""
            try:
                self._do(command)
            except BaseException as error:  # noqa: BLE001 - every error must be reported
                if self._opener is not None and self._opener.explains(error):
                    continue  # `StartedServer.watch` reports that the server has ended
                log(error)
                failure = describe(error, turn=turn, loading=loading)
                self._outbox.send(failure)
                if self._decoder is not None and failure.kind != DEVICE_FAILED:
                    self._forget(self._decoder)

    def _forget(self, decoder: LoopDecoder | RemoteDecoder) -> None:
        try:
            decoder.forget()
        except Exception as error:  # noqa: BLE001 - no further answer can be trusted
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        """Report an error after which the variant cannot be used, not only one answer."""
        self._outbox.send(describe(error))

    def _do(self, command: Request) -> None:
        match command:
            case LoadModel():
                from quantchat.worker.loaders import loader_of

                loader = loader_of(command)
                if getattr(loader, "SERVER", False):
                    self._connect(command, loader)
                else:
                    self._load(command)
            case Generate():
                if self._decoder is None:
                    raise Refused("internal", "asked to generate before a model was loaded")
                received = time.perf_counter_ns()
                self._decoder.answer(command, received, self._outbox, self._stopped)
            case ScoreTokens():
                self._score_tokens(command)
            case _:
                self._run(command)

    def _stopped(self, turn: int) -> bool:
        """Return whether to stop decoding `turn`: on request, or because its answer has ended."""
        return self._inbox.stopped(turn) or self._outbox.complete(turn)

    def _score_tokens(self, command: ScoreTokens) -> None:
        try:
            if self._decoder is None:
                raise Refused("internal", "asked to score tokens before a model was loaded")
            scores = self._decoder.score_tokens(command, self._inbox.cancelled)
        except Exception as error:  # noqa: BLE001 - the variant can still answer
            scores = TokenScores(command.number, problem=describe(error).reason)
        self._outbox.send(scores)

    def _connect(self, command: LoadModel, loader: ModuleType) -> None:
        from quantchat.worker.servers.opening import Opener

        def tell(stage: str, detail: str) -> None:
            self._outbox.send(Progress(stage, detail=detail))

        self._opener = Opener(tell, self._failed)
        opened = self._opener.open(command, loader)
        server = self._decoder = opened.decoder
        self._outbox.send(
            Ready(
                model_info=server.model_info(),
                ledger=server.ledger(),
                import_s=opened.imported - self._began,
                weights_s=opened.started - opened.imported,
                warmup_s=opened.ready - opened.started,
                note=server.note,
                keeps_prompts=server.keeps_prompts,
            )
        )

    def _load(self, command: LoadModel) -> None:
        from quantchat.worker.loaders import decoder_of, hide_unused, load_any, load_draft

        hide_unused(command)
        from quantchat.worker.model.hub import of_mib

        stages_begun: list[tuple[str, float]] = []

        def stage(name: str) -> None:
            self._outbox.send(Progress(name))
            stages_begun.append((name, time.perf_counter()))

        def fetching(done: int, total: int) -> None:
            self._outbox.send(Progress(FETCHING, done, total, of_mib(done, total)))

        # Load the draft model first: a large model is then placed in the GPU memory that is left.
        draft = load_draft(command, stage, fetching)
        loaded = load_any(command, stage, fetching, self._outbox.send)
        stage(WARMING_UP)
        decoder = decoder_of(loaded, command, lambda name: self._outbox.send(Progress(name)), draft)
        ready = time.perf_counter()
        self._decoder = decoder
        self._outbox.serve(
            loaded.tokenizer_backend,
            lambda: Memory(decoder.ledger()),
            loaded.template_text,
            command.thought_marks,
        )
        seconds = seconds_by_stage(stages_begun, ready)
        imported = stages_begun[0][1] - self._began + seconds[IMPORTING]
        fetch, weights = seconds[FETCHING], seconds[WEIGHTS]
        self._outbox.send(
            Ready(
                model_info=decoder.model_info(),
                ledger=decoder.ledger(),
                import_s=imported,
                weights_s=weights,
                # The rest, which includes compiling kernels before the weights are loaded.
                warmup_s=ready - self._began - imported - fetch - weights,
                fetch_s=fetch,
                note=decoder.note,
            )
        )

    def _run(self, job: AnyJob) -> None:
        from quantchat.worker.jobs import dispatch

        def report(done: int, total: int, detail: str) -> None:
            self._outbox.send(Progress(job.title, done, total, detail))

        dispatch.hide_unused(job)
        self._outbox.send(dispatch.run(job, report))


def seconds_by_stage(begun: Sequence[tuple[str, float]], ready: float) -> Mapping[str, float]:
    """Return how long each stage took, in seconds, by the name of the stage.

    `begun` has the name of each stage and the time at which it began; `ready` is the time at which
    the last stage ended. An engine may report each layer that it quantizes as a stage; these stages
    count as loading the weights.
    """
    ends = [at for _, at in begun[1:]] + [ready]
    seconds: defaultdict[str, float] = defaultdict(float)
    stage = ""
    for (name, at), end in zip(begun, ends, strict=True):
        stage = WEIGHTS if stage == WEIGHTS and name not in get_args(LoadStage) else name
        seconds[stage] += end - at
    return seconds
