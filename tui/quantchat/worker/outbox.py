"""Events leave the worker from a thread of their own, so that decoding never waits for a reader.

Tokens are detokenized here too, and sent in batches: the decoding thread only drops an id and a
time into a queue. Only the decoding thread may run torch; this one does not.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quantchat.worker.lifeline import end_now
from quantchat.worker.protocol import Alive, Event, Finished, Memory, Tokens, encode
from quantchat.worker.thoughts import Marks, OutputText

BATCH_S = 0.03
"""Tokens wait this long for company. A screen draws ten times a second at most."""

MEMORY_S = 0.5
"""Least time between two memory ledgers while decoding."""

ALIVE_S = 2.0
"""A worker gives a sign of life after this long without another event."""


@dataclass(frozen=True)
class _Token:
    id: int
    time_ns: int


@dataclass(frozen=True)
class _Begin:
    turn: int
    prompt: Sequence[int]


@dataclass(frozen=True)
class _End:
    turn: int
    reason: str
    finished_ns: int
    memory: Memory | None


class Outbox:
    """Writes events to descriptor `fd` in the order they were put in.

    `alive_s`: say `Alive` after so many seconds without another event; None says nothing.
    """

    def __init__(self, fd: int, alive_s: float | None = None) -> None:
        self._fd = fd
        self._alive_s = alive_s
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._held: list[Any] = []
        self._tokenizer: Any = None
        self._marks: Marks
        self._read_memory: Callable[[], Memory] | None = None
        threading.Thread(target=self._run, name="outbox", daemon=True).start()

    def serve(self, tokenizer: Any, read_memory: Callable[[], Memory], template: str = "") -> None:
        """Use `tokenizer` (a `tokenizers.Tokenizer`) for tokens, and report memory with them.

        `template` is the model's chat template, whose marks of thoughts are looked for.
        """
        self._tokenizer = tokenizer
        self._marks = Marks(tokenizer, template)
        self._read_memory = read_memory

    def send(self, event: Event) -> None:
        """Queue an event."""
        self._queue.put(event)

    def begin(self, turn: int, prompt: Sequence[int] = ()) -> None:
        """Tokens from here on belong to `turn`, and follow the tokens of `prompt`."""
        self._queue.put(_Begin(turn, prompt))

    def token(self, token_id: int, time_ns: int) -> None:
        """Queue one output token, known on the host at `time_ns`."""
        self._queue.put(_Token(token_id, time_ns))

    def end(self, turn: int, reason: str, finished_ns: int) -> None:
        """Queue the end of `turn`: sends what is left of its text, its memory, then Finished.

        The memory is read here and now: the caller may forget the KV cache right after.
        """
        memory = self._read_memory() if self._read_memory is not None else None
        self._queue.put(_End(turn, reason, finished_ns, memory))

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        turn = -1
        stream: Any = None
        output: OutputText
        ids: list[int] = []
        memory_due = 0.0
        while True:
            item = self._next()
            if isinstance(item, _Begin):
                from tokenizers.decoders import DecodeStream

                turn, ids = item.turn, []
                output = OutputText(self._marks, item.prompt)
                stream = DecodeStream(skip_special_tokens=True)
            elif isinstance(item, _Token):
                batch = self._batch(item)
                pieces = [stream.step(self._tokenizer, token.id) or "" for token in batch]
                ids += [token.id for token in batch]
                times = [token.time_ns for token in batch]
                split = [
                    output.add(token.id, one) for token, one in zip(batch, pieces, strict=True)
                ]
                pieces, thoughts = [one for one, _ in split], [one for _, one in split]
                thoughts = thoughts if any(thoughts) else []
                self._write(Tokens(turn, [token.id for token in batch], pieces, times, thoughts))
                if self._read_memory is not None and time.monotonic() >= memory_due:
                    self._write(self._read_memory())
                    memory_due = time.monotonic() + MEMORY_S
            elif isinstance(item, _End):
                text, thought, raw = output.whole(ids)
                if item.memory is not None:
                    self._write(item.memory)
                self._write(
                    Finished(
                        turn=item.turn,
                        reason=item.reason,
                        output_tokens=len(ids),
                        text=text,
                        finished_ns=item.finished_ns,
                        thoughts=thought,
                        thought_tokens=output.thought_tokens,
                        raw=raw,
                    )
                )
            else:
                self._write(item)

    def _batch(self, first: _Token) -> list[_Token]:
        """`first` and the tokens that follow it within `BATCH_S`."""
        batch = [first]
        until = time.monotonic() + BATCH_S
        while (left := until - time.monotonic()) > 0:
            try:
                item = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if not isinstance(item, _Token):
                self._held.append(item)
                break
            batch.append(item)
        return batch

    def _next(self) -> Any:
        if self._held:
            return self._held.pop()
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
        except OSError:  # nobody reads any more
            end_now()
