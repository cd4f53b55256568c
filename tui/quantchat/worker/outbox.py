"""Send events to the main process from a separate thread, so that decoding never waits for it.

The outbox's thread also detokenizes, and sends tokens in batches. The decoding thread only puts the
id and the time of each token into a queue. Only the decoding thread may run torch.

An exception in the outbox's thread during an answer is reported as the failure of that turn, and
the rest of the turn is dropped. Between two answers, an exception is reported as the variant's
failure. If it cannot be reported, the worker ends, which the main process notices.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quantchat.wire.messages import Alive, Finished, Memory, Tokens
from quantchat.wire.protocol import Event, encode
from quantchat.worker import threads
from quantchat.worker.failures import describe, log
from quantchat.worker.parent_watchdog import end_now
from quantchat.worker.thinking_limit import PieceStream, ThinkingLimit
from quantchat.worker.thoughts import Marks, OutputText

BATCH_S = 0.03
"""Tokens within this many seconds are sent as one batch. That is often enough for the screen, which
is redrawn less often."""

MEMORY_S = 0.5
"""Fewest seconds between two memory ledgers while decoding."""

ALIVE_S = 2.0
"""Seconds without another event after which the worker sends a heartbeat."""


@dataclass(frozen=True)
class _Token:
    id: int
    time_ns: int


@dataclass(frozen=True)
class _Begin:
    turn: int
    prompt: Sequence[int]
    stop: Sequence[str]


@dataclass(frozen=True)
class _End:
    turn: int
    reason: str
    finished_ns: int
    memory: Memory | None


class _Pieces:
    """Decodes token ids one by one into pieces; joined, these are the text of all tokens.

    `DecodeStream` of the library `tokenizers` decodes consecutive tokens for single bytes together.
    If a later byte makes them invalid UTF-8, characters that were already returned would become
    U+FFFD, so `DecodeStream` raises an exception ("Invalid prefix encountered"). Then the pieces
    returned so far stay as they are, and a new `DecodeStream` begins with the tokens that have
    completed no text yet.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._begin()

    def _begin(self) -> None:
        from tokenizers.decoders import DecodeStream

        self._stream = DecodeStream(skip_special_tokens=True)
        self._incomplete: list[int] = []
        """Tokens that have completed no text yet."""

    def step(self, token: int) -> str:
        """Return the text that `token` completes, "" if it completes no character.

        If the tokenizer raises an exception, decode once more with a new `DecodeStream`; a second
        exception is not caught.
        """
        incomplete = [*self._incomplete, token]
        try:
            return self._step(token)
        except Exception:  # noqa: BLE001 - `tokenizers` raises no narrower class
            self._begin()
            return "".join(map(self._step, incomplete))

    def _step(self, token: int) -> str:
        piece: str | None = self._stream.step(self._tokenizer, token)
        if piece:
            self._incomplete.clear()
        else:
            self._incomplete.append(token)
        return piece or ""


class Outbox:
    """Writes events to the file descriptor `fd` in the order in which they were queued.

    After `alive_s` seconds without another event it sends `Alive`; never if `alive_s` is None.
    """

    def __init__(self, fd: int, alive_s: float | None = None) -> None:
        self._fd = fd
        self._alive_s = alive_s
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._put_back: list[Any] = []
        """An item that `_batch` took from the queue and did not use."""
        self._tokenizer: Any = None
        self._marks: Marks
        self._read_memory: Callable[[], Memory] | None = None
        self._memory_due = 0.0
        self._turn = -1
        """The turn to which queued tokens belong; -1 between two answers."""
        self._failed_turn: int | None = None
        """The last turn whose text could not be decoded or sent."""
        self._stopped_turn: int | None = None
        """The last turn that a stop string has ended."""
        self._output: OutputText
        self._pieces: PieceStream
        self._ids: list[int] = []
        threads.start("outbox", self._run, lambda _: end_now())

    def serve(
        self,
        tokenizer: Any,
        read_memory: Callable[[], Memory],
        template: str = "",
        thought_marks: Sequence[str] | None = None,
    ) -> None:
        """Set how tokens are decoded and memory is read, once a model is loaded.

        `tokenizer` is a `tokenizers.Tokenizer`, or an object with its methods. `read_memory`
        returns the memory ledger, which is sent between tokens. The marks around thoughts are
        `thought_marks`, if the profile names them; otherwise those in `template`, the model's chat
        template.
        """
        self._tokenizer = tokenizer
        self._marks = Marks(tokenizer, template, thought_marks)
        self._read_memory = read_memory

    def send(self, event: Event) -> None:
        """Queue an event."""
        self._queue.put(event)

    def begin(self, turn: int, prompt: Sequence[int] = (), stop: Sequence[str] = ()) -> None:
        """Begin `turn`: later tokens belong to it, and follow the tokens of `prompt`.

        The first stop string in `stop` that appears in the output ends the turn. The outbox's
        thread notices that, not the decoding thread, so further tokens may be queued; they are
        dropped.
        """
        self._queue.put(_Begin(turn, prompt, stop))

    def token(self, token_id: int, time_ns: int) -> None:
        """Queue one output token, whose id the CPU knew at `time_ns` (`time.perf_counter_ns`)."""
        self._queue.put(_Token(token_id, time_ns))

    def end(self, turn: int, reason: str, finished_ns: int) -> None:
        """Queue the end of `turn`: its memory ledger, then `Finished` with the whole text.

        The memory is read now, because the caller may drop the KV cache right after.
        """
        memory = self._read_memory() if self._read_memory is not None else None
        self._queue.put(_End(turn, reason, finished_ns, memory))

    def complete(self, turn: int) -> bool:
        """Return whether `turn` needs no more tokens: a stop string has ended it, or it failed."""
        return turn in (self._stopped_turn, self._failed_turn)

    def thinking_limit(self, prompt: Sequence[int], most: int) -> ThinkingLimit:
        """Return an object that limits thoughts in the output after `prompt` to `most` tokens."""
        return ThinkingLimit(self._tokenizer, self._marks, self._new_pieces(), prompt, most)

    def flush(self, timeout_s: float) -> None:
        """Wait until everything queued is written, for at most `timeout_s` seconds."""
        written = threading.Event()
        self._queue.put(written)
        written.wait(timeout_s)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        while True:
            item = self._next()
            try:
                self._handle(item)
            except Exception as error:  # noqa: BLE001 - every error must be reported
                log(error)
                turn = self._turn if isinstance(item, _Begin | _Token | _End) else -1
                if turn >= 0:
                    self._failed_turn = turn
                self._write(describe(error, turn=turn))

    def _handle(self, item: Any) -> None:
        if isinstance(item, _Begin):
            self._turn, self._ids = item.turn, []
            self._output = OutputText(self._marks, item.prompt, item.stop)
            self._pieces = self._new_pieces()
        elif isinstance(item, _Token):
            self._send_tokens(self._batch(item))
        elif isinstance(item, _End):
            if self._failed_turn != item.turn:
                self._finish(item)
            self._turn = -1
        elif isinstance(item, threading.Event):
            item.set()
        else:
            self._write(item)

    def _send_tokens(self, batch: list[_Token]) -> None:
        split = []
        for token in batch:
            if self.complete(self._turn):
                break
            split.append(self._output.add(token.id, self._pieces.step(token.id)))
            if self._output.stopped:
                self._stopped_turn = self._turn
        if not split:
            return
        ids = [token.id for token in batch[: len(split)]]
        self._ids += ids
        times = [token.time_ns for token in batch[: len(split)]]
        pieces, thoughts = [one for one, _ in split], [one for _, one in split]
        self._write(Tokens(self._turn, ids, pieces, times, thoughts if any(thoughts) else []))
        if self._read_memory is not None and time.monotonic() >= self._memory_due:
            self._write(self._read_memory())
            self._memory_due = time.monotonic() + MEMORY_S

    def _new_pieces(self) -> PieceStream:
        # A tokenizer that is not a `tokenizers.Tokenizer` has its own decoder for single tokens.
        own = getattr(self._tokenizer, "pieces", None)
        stream: PieceStream = own() if own else _Pieces(self._tokenizer)
        return stream

    def _finish(self, end: _End) -> None:
        text, thoughts, raw = self._output.whole(self._ids)
        if end.memory is not None:
            self._write(end.memory)
        self._write(
            Finished(
                turn=end.turn,
                reason="stop_string" if self._output.stopped else end.reason,
                output_tokens=len(self._ids),
                text=text,
                finished_ns=end.finished_ns,
                thoughts=thoughts,
                thought_tokens=self._output.thought_tokens,
                raw=raw,
            )
        )

    def _batch(self, first: _Token) -> list[_Token]:
        """Return `first` and the tokens that follow it within `BATCH_S`."""
        batch = [first]
        until = time.monotonic() + BATCH_S
        while (left := until - time.monotonic()) > 0:
            try:
                item = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if not isinstance(item, _Token):
                self._put_back.append(item)
                break
            batch.append(item)
        return batch

    def _next(self) -> Any:
        if self._put_back:
            return self._put_back.pop()
        while True:
            try:
                return self._queue.get(timeout=self._alive_s)
            except queue.Empty:
                self._write(Alive())

    def _write(self, event: Event) -> None:
        line = memoryview(encode(event))
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError:  # the reader has gone
            end_now()
