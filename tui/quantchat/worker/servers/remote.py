"""Stream the answers of an OpenAI-compatible server, and record when each chunk arrives.

The protocol: https://platform.openai.com/docs/api-reference/chat/create-streaming. A server sends
chunks of text, usually one token each, and no token ids. So times are recorded for chunks, not for
tokens, and the number of tokens is known only if the server reports it (`usage`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from quantchat.wire.messages import (
    NO_ID,
    Drafted,
    Finished,
    Generate,
    LoadModel,
    Note,
    ScoreTokens,
    Started,
    Tokens,
    TokenScores,
)
from quantchat.wire.variant import Ledger, ModelInfo
from quantchat.worker.failures import Refused
from quantchat.worker.outbox import Outbox
from quantchat.worker.servers import ollama
from quantchat.worker.servers.client import ServerClient
from quantchat.worker.servers.prompt_logprobs import TokenLogprobs
from quantchat.worker.servers.refusals import (
    cut_off,
    is_of_the_request,
    is_timeout,
    is_transport,
)
from quantchat.worker.servers.stream import (
    DraftCounts,
    Record,
    Usage,
)
from quantchat.worker.thoughts import Splitter, server_splitter, split_at_end

_T = TypeVar("_T")

STOP_S = 0.02
"""Seconds between two checks, while nothing arrives, whether the user has stopped the answer."""

MOST_TEXT = 8 * 2**20
"""Longest answer with its thoughts, in characters when encoded as JSON. A message from the worker
may be twice as long."""

MOST_CHUNKS_A_TOKEN, MOST_CHUNKS = 64, 1024
"""An answer has at most `MOST_CHUNKS` chunks and `MOST_CHUNKS_A_TOKEN` more for each requested
token: a proxy may send single letters."""

_LATE_CHUNKS = 64
"""If more chunks of thoughts than this arrive beyond `max_thinking_tokens`, the server ignores that
limit. Fewer are accepted, because a server may add a sentence to end the thoughts."""

_EOS_AS_TEXT = "eos_token"
"""The reason that TGI gives if an end token ends a completion. The text of the chunk with this
reason is the end token, not a part of the answer."""
_REASONS = {"stop": "eos", _EOS_AS_TEXT: "eos", "length": "length"}
"""Key: a server's reason for the end of an answer; value: quantchat's name for it."""


@dataclass
class _Stream:
    """An answer while it arrives."""

    turn: int
    splitter: Splitter
    """Separates thoughts that the server sends within the text, between marks."""
    text: str = ""
    """The answer so far, without thoughts."""
    thoughts: str = ""
    size: int = 0
    """Number of characters of answer and thoughts when encoded as JSON."""
    chunks: int = 0
    """Number of chunks with a token so far."""
    thought_chunks: int = 0
    """Number of these chunks with thoughts."""
    reason: str = ""
    """The server's reason why the answer ended; empty before its end."""
    stopped_by: str | None = None
    """The stop string that ended the answer; None if the server does not report it."""
    usage: Usage | None = None
    drafts: DraftCounts | None = None
    arrived_s: float = field(default_factory=time.monotonic)
    """When a part of the answer last arrived, in seconds of `time.monotonic`."""
    last: deque[str] = field(default_factory=lambda: deque(maxlen=ollama.MOST_REPEATED))
    """The texts of the latest chunks."""


class RemoteDecoder:
    """Answers by asking a server; used in place of a decoder of a local model."""

    def __init__(self, command: LoadModel) -> None:
        self.client = ServerClient(command)
        self._thought_marks = command.thought_marks
        """The marks around thoughts, if the profile names them."""

    def connect(self, wait: Callable[[str], None] | None = None) -> None:
        """Connect as `ServerClient.connect` does. Raises Refused."""
        self.client.connect(wait)

    def model_info(self) -> ModelInfo:
        """Return what the server reports about itself and the model."""
        return self.client.model_info()

    @property
    def note(self) -> str:
        """Notes that tell the user how this server's figures were measured."""
        return self.client.note

    @property
    def keeps_prompts(self) -> bool:
        """Whether the server caches prompts even if the request forbids it."""
        return self.client.keeps_prompts

    def ledger(self) -> Ledger:
        """Return a ledger without figures, because a client does not know a server's memory."""
        now = time.perf_counter_ns()
        return Ledger(self.client.device, -1, {}, -1, -1, -1, -1, -1, -1, now)

    def forget(self) -> None:
        """Do nothing, because each request contains the whole chat."""

    def score_tokens(self, request: ScoreTokens, cancelled: Callable[[], bool]) -> TokenScores:
        """Return the log-probabilities and ranks of the tokens of the answer `request.text`.

        The server tokenizes the text. Raises Refused if the server does not report the
        log-probabilities, or if `cancelled()` becomes true.
        """
        if not request.text:
            return TokenScores(request.number, problem="servers report no token ids")
        scored = self.client.score_answer(request.messages, request.text, request.batch)
        found = self.client.run(_cancellable(scored, cancelled))
        if any(one.best is None for one in found):
            problem = "the server does not name the likeliest token of each position"
            return TokenScores(request.number, problem=problem)
        return TokenScores(
            request.number,
            logprobs=[one.own for one in found],
            ranks=[_rank(one) for one in found],
        )

    # ------------------------------------------------------------ answering

    def answer(
        self,
        request: Generate,
        received_ns: int,
        outbox: Outbox,
        stopped: Callable[[int], bool],
    ) -> None:
        """Stream one answer to `outbox` until it ends or `stopped(turn)` is true. Raises Refused.

        `received_ns` is when the worker received the request (`time.perf_counter_ns`).
        """
        if request.prompt_tokens:
            raise Refused(
                "unsupported",
                "a prompt cannot be cut to a number of tokens: servers report no token ids",
                "measure without --prompt-tokens",
            )
        outbox.send(Started(request.turn, received_ns, 0, 0))
        stream = _Stream(request.turn, server_splitter(self._thought_marks))
        complete = self.client.run(self._until_stopped(request, outbox, stream, stopped))
        answer, thought = stream.splitter.end()
        usage = stream.usage or Usage()
        text, thoughts = stream.text + answer, stream.thoughts + thought
        if not thoughts:
            text, thoughts = split_at_end(text)
        reason, output_tokens = (
            self._end(request, stream, usage) if complete else ("stop", usage.output)
        )
        if (found := stream.drafts) is not None:
            outbox.send(Drafted(request.turn, found.drafted, found.accepted, found.passes))
        outbox.send(
            Finished(
                turn=request.turn,
                reason=reason,
                output_tokens=output_tokens,
                text=text,
                finished_ns=time.perf_counter_ns(),
                chunks=stream.chunks,
                prompt_tokens=usage.prompt,
                cached_tokens=max(0, usage.cached),
                thoughts=thoughts,
                thought_tokens=usage.thoughts if usage.thoughts >= 0 else -bool(thoughts),
            )
        )

    def _end(self, request: Generate, stream: _Stream, usage: Usage) -> tuple[str, int]:
        """Return why a complete answer ended (`Finished.reason`), and its number of tokens.

        The number is -1 if the server does not report it.
        """
        reason, output_tokens = _REASONS.get(stream.reason, stream.reason), usage.output
        if stream.stopped_by:
            reason = "stop_string"
        elif stream.reason == "stop" and request.sampling.stop and stream.stopped_by is None:
            reason = "eos_or_stop_string"
        if reason in ("eos", "eos_or_stop_string") and output_tokens == stream.chunks + 1:
            # The server has also counted the end token. It does not send this token, which is not
            # part of the answer.
            output_tokens = stream.chunks
        if reason == "length" and 0 <= output_tokens < request.max_new_tokens:
            reason = "context"  # vLLM accepts a prompt with less room after it than requested
        known = usage.prompt >= 0 and usage.output >= 0
        if (
            self.client.ollama
            and known
            and self.client.ollama.dropped(request.messages, usage.prompt, usage.output)
        ):
            reason = "context"
        return reason, output_tokens

    async def _until_stopped(
        self,
        request: Generate,
        outbox: Outbox,
        stream: _Stream,
        stopped: Callable[[int], bool],
    ) -> bool:
        """Read the answer, unless `stopped` becomes true; return whether the answer is complete.

        Raises TimeoutError if nothing of the answer arrives for the time limit.
        """
        reading = asyncio.ensure_future(self._read(request, outbox, stream))
        while not reading.done():
            silent = time.monotonic() - stream.arrived_s > self.client.timeout_s
            if silent or stopped(request.turn):
                reading.cancel()  # closes the connection, which makes the server stop
                await asyncio.wait([reading])
                if not reading.cancelled():
                    break
                if silent and not stream.reason:
                    # Keep-alives or incomplete events may have arrived, but nothing of the answer.
                    raise TimeoutError
                return silent
            await asyncio.wait([reading], timeout=STOP_S)
        await reading
        return True

    async def _read(self, request: Generate, outbox: Outbox, stream: _Stream) -> None:
        """Read the answer. If the server refuses parameters, repeat the request without them."""
        while True:
            try:
                await self._read_answer(request, outbox, stream)
                return
            except Exception as error:
                of_request = not stream.chunks and is_of_the_request(error)
                if not (of_request and self.client.refusals.learn(error, also_set=True)):
                    raise
            outbox.send(Note(self.note))
            self._restart(request, outbox, stream)

    def _restart(self, request: Generate, outbox: Outbox, stream: _Stream) -> None:
        """Start the timing of the answer again."""
        outbox.send(Started(request.turn, time.perf_counter_ns(), 0, 0))
        stream.arrived_s = time.monotonic()

    async def _read_answer(self, request: Generate, outbox: Outbox, stream: _Stream) -> None:
        records = await self._begin(request, outbox, stream)
        most = MOST_CHUNKS_A_TOKEN * request.max_new_tokens + MOST_CHUNKS
        try:
            async with contextlib.aclosing(records):
                async for record in records:
                    self._add(record, outbox, stream)
                    if stream.chunks > most:
                        message = f"the server does not stop after {request.max_new_tokens} tokens"
                        raise cut_off(self.client.where, message)
                    budget = request.sampling.max_thinking_tokens
                    if budget and stream.thought_chunks > budget + _LATE_CHUNKS:
                        raise _ignores_thinking_limit(budget)
        except Exception as error:
            if not is_transport(error):
                raise
            if not stream.reason:
                if is_timeout(error):
                    raise
                raise cut_off(self.client.where, str(error) or type(error).__name__) from error
            # The answer is complete: after its finish reason only a token count could follow.
        if not stream.reason:
            why = ollama.why_cut(stream.last) if self.client.ollama else ""
            raise cut_off(self.client.where, why or "the stream ended in the middle of the answer")
        if stream.reason == "error":
            raise cut_off(
                self.client.where, "the server ended the answer with an error that it does not name"
            )

    async def _begin(
        self, request: Generate, outbox: Outbox, stream: _Stream
    ) -> AsyncGenerator[Record, None]:
        if self.client.ollama:
            await asyncio.wait_for(self.client.ollama.load(), self.client.timeout_s)
            # Start the timing after loading, so that the TTFT does not include it.
            self._restart(request, outbox, stream)
        return await self.client.records(request)

    def _add(self, record: Record, outbox: Outbox, stream: _Stream) -> None:
        now = time.perf_counter_ns()
        before = stream.usage or Usage()
        if record.usage is not None:
            stream.usage = before.updated(record.usage)
        output_tokens = (stream.usage or before).output
        stream.drafts = record.drafts or stream.drafts
        text = record.text or record.thought
        if text or record.reason or output_tokens > before.output:
            stream.arrived_s = time.monotonic()
        ended = bool(stream.reason)  # LiteLLM sends its token count in a further chunk
        stream.reason = record.reason or stream.reason
        if record.stopped_by is not None:
            stream.stopped_by = record.stopped_by
        if record.reason == _EOS_AS_TEXT:
            return
        if not text:
            # A token may have no text: it may end within a character, or be an end token that
            # ignore_eos ignores. The chunk of such a token must be counted and timed, or the last
            # tokens would seem to take no time. It can be recognized only if the server sends a
            # token count with each chunk. Other servers send one count, for the whole answer, with
            # the reason for its end.
            goes_on = not ended and record.reason in ("", "length")
            counts_each_chunk = before.output >= stream.chunks > 0
            if not (goes_on and counts_each_chunk and output_tokens > before.output):
                return
        stream.size += len(json.dumps(record.text)) + len(json.dumps(record.thought))
        if stream.size > MOST_TEXT:
            raise cut_off(self.client.where, f"the answer is longer than {MOST_TEXT >> 20} MiB")
        piece, thought = stream.splitter.feed(record.text)
        thought = record.thought + thought
        stream.chunks += 1
        stream.text += piece
        stream.thoughts += thought
        stream.thought_chunks += bool(thought)
        stream.last.append(record.text)
        outbox.send(Tokens(stream.turn, [NO_ID], [piece], [now], [thought] if thought else []))


async def _cancellable(work: Coroutine[Any, Any, _T], cancelled: Callable[[], bool]) -> _T:
    """Return the result of the coroutine `work`. Raises Refused once `cancelled()` is true."""
    task = asyncio.ensure_future(work)
    while not task.done():
        if cancelled():
            task.cancel()  # closes its connections
            await asyncio.wait([task])
            raise Refused("stopped", "cancelled by another command", "")
        await asyncio.wait([task], timeout=STOP_S)
    return task.result()


def _rank(logprobs: TokenLogprobs) -> int:
    """Return the rank of the answer's token: how many likelier tokens the server reports."""
    named = sum(logprob > logprobs.own for logprob in logprobs.likeliest.values())
    return named or int(logprobs.best is not None and logprobs.best > logprobs.own)


def _ignores_thinking_limit(budget: int) -> Refused:
    return Refused(
        "unsupported",
        f"the server goes on thinking after max_thinking_tokens = {budget}",
        "set it to 0; or use a newer server, and start vLLM with --reasoning-config",
    )
