"""Stream the answers of an OpenAI-compatible server, and note when each chunk arrives.

The protocol: https://platform.openai.com/docs/api-reference/chat/create-streaming. A server sends
chunks of text, usually one token each, and no token ids. The times are those of the chunks; the
number of tokens is known only if the server counts them (`usage`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from quantchat.common.versions import versions
from quantchat.wire.messages import (
    NO_ID,
    Finished,
    Generate,
    Load,
    Message,
    Note,
    Sampling,
    ScoreTokens,
    Started,
    Tokens,
    TokenScores,
)
from quantchat.wire.variant import SERVER, STARTED_SERVER, Ledger, Resolved
from quantchat.worker.failures import Refused
from quantchat.worker.outbox import Outbox
from quantchat.worker.servers import ollama
from quantchat.worker.servers.connection import MOST_BYTES, MOST_BYTES_A_TOKEN, Connection
from quantchat.worker.servers.prompt_logprobs import MOST_BYTES_A_POSITION, TokenLogprobs, read
from quantchat.worker.servers.refusals import (
    StillLoading,
    cut_off,
    is_of_the_request,
    is_timeout,
    is_transport,
    refusal,
)
from quantchat.worker.servers.request import DIALECTS, Refusals, request_arguments
from quantchat.worker.servers.stream import (
    Record,
    StreamReader,
    Usage,
    count,
    mapping,
    name,
    parsed,
)
from quantchat.worker.thoughts import Splitter, served_splitter, split_at_end

_T = TypeVar("_T")

STOP_S = 0.02
"""Seconds between two checks for a stop while nothing arrives."""

MOST_TEXT = 8 * 2**20
"""Longest text of an answer, in characters of JSON: a message to the host has room for two."""

MOST_CHUNKS_A_TOKEN, MOST_CHUNKS = 64, 1024
"""Most chunks per requested token, and further chunks: a proxy may send single letters."""

_SPELT_END = "eos_token"
"""TGI's reason in a completion: the text of that chunk is the end token, not part of the answer."""
_REASONS = {"stop": "eos", _SPELT_END: "eos", "length": "length"}
"""The server's reasons for an end, and quantchat's names for them."""


@dataclass
class _Stream:
    """An answer while it arrives."""

    turn: int
    splitter: Splitter
    """For servers that send thoughts within the text, between marks."""
    text: str = ""
    thoughts: str = ""
    size: int = 0
    """Characters of text and thoughts, as JSON."""
    chunks: int = 0
    reason: str = ""
    usage: Usage | None = None
    heard_s: float = field(default_factory=time.monotonic)
    """When something of the answer last arrived."""
    last: deque[str] = field(default_factory=lambda: deque(maxlen=ollama.MOST_REPEATED))
    """The texts of the latest chunks."""


class RemoteDecoder:
    """Takes the place of a `Decoder`, and asks a server instead of a model."""

    def __init__(self, command: Load) -> None:
        self._command = command
        options = command.options
        self._model = command.model
        self._chat = options["api"] == "chat"
        self._template: dict[str, bool | int | str] = options.get("chat_template_kwargs", {})
        self._thought_marks: list[str] | None = options.get("thought_marks")
        """As the profile names them."""
        self._key_env = str(options.get("key_env") or "")
        self._timeout_s = float(options["timeout_s"])
        self._sampling = Sampling(**options.get("sampling", {}))
        """Sampling settings of the requests, as far as they are known when it loads."""
        own = bool(options.get("server"))
        self._connection = Connection(
            str(options["base_url"]), key_env=self._key_env, timeout_s=self._timeout_s, own=own
        )
        self._client, self._where = self._connection.client, self._connection.where
        self._device = STARTED_SERVER if own else SERVER
        self._loop = asyncio.new_event_loop()
        self._dialect = DIALECTS[0]
        self._refusals = Refusals()
        self._counts = False
        """Whether the server has counted its tokens."""
        self._streams = True
        """Whether it streams; a server that does not sends each answer as a whole."""
        self._build = ""
        """Its `system_fingerprint`, usually a version."""
        self._has: list[str] = []
        """The models that it lists, if the requested one is not among them."""
        self._listed: dict[str, Any] = {}
        """Its entry for the model in the list."""
        self._ollama: ollama.Ollama | None = None

    # ------------------------------------------------------------ loading

    def connect(self, wait: Callable[[str], None] | None = None) -> None:
        """List the server's models and request one token. Raises Refused.

        While the server says that it still loads its model, `wait` is called with that message and
        returns when to ask again. Without `wait` the server must be ready.
        """
        while True:
            try:
                self.run(self._list())
                self.run(self._warm_up())
                break
            except StillLoading as error:
                if wait is None:
                    raise
                wait(error.failure.reason)
        if self._build == ollama.FINGERPRINT:
            found = ollama.found(self._client, self._connection.url, self._model, self._timeout_s)
            self._ollama = self.run(found)

    async def _list(self) -> None:
        import openai

        try:
            asked_for = self._client.get("/models", cast_to=object)
            body = await asyncio.wait_for(asked_for, self._timeout_s)
            # A str if the server does not declare JSON.
            listed = mapping(parsed(body) if isinstance(body, str) else body).get("data")
        except (openai.APITimeoutError, asyncio.TimeoutError):
            raise  # else the wait would be repeated
        except Exception as error:
            if _refused(error) is not None:
                raise
            return  # not every server has a list; the first request shows whether it works
        models = [mapping(one) for one in listed] if isinstance(listed, list) else []
        names = (self._model, self._model + ollama.LATEST)
        self._listed = next((model for model in models if model.get("id") in names), {})
        self._has = [] if self._listed else [m for one in models if (m := name(one.get("id")))]

    async def _warm_up(self) -> None:
        for self._dialect in DIALECTS:
            if await self._takes(self._sampling, last=self._dialect == DIALECTS[-1]):
                break
        else:
            # mlx_lm.server drops the connection if it does not accept a parameter.
            raise cut_off(self._where, "it ended in the middle of the answer")
        if self._sampling.temperature or "temperature" in self._refusals.without:
            return
        # Try sampling too: the settings may change later.
        taken = self._dialect
        for self._dialect in DIALECTS[DIALECTS.index(taken) :]:
            if await self._takes(Sampling(temperature=1.0), last=False, learn=False):
                return
        self._dialect = taken

    async def _takes(self, sampling: Sampling, *, last: bool, learn: bool = True) -> bool:
        """Return whether the server answers a request in the current dialect.

        With `last`, its refusal is raised. `learn`: omit parameters that a refusal names.
        """
        # `fresh` also tries the options that only measurements need.
        request = Generate(-1, [Message("user", "Hi")], sampling, max_new_tokens=1, fresh=True)
        while True:
            try:
                return await asyncio.wait_for(self._probe(request), self._timeout_s)
            except Exception as error:
                if not is_of_the_request(error):
                    raise
                if learn and self._refusals.learn(error, also_set=last):
                    continue
                if last:
                    raise
                return False

    async def _probe(self, request: Generate) -> bool:
        """Return whether the answer to `request` was complete."""
        ended = False
        async with contextlib.aclosing(await self.records(request)) as records:
            async for record in records:
                counts = record.usage is not None and record.usage.output > 0
                self._counts = self._counts or counts
                self._streams = self._streams and not record.whole
                self._build = record.build or self._build
                ended = ended or bool(record.reason)
        return ended

    def resolved(self) -> Resolved:
        """Return what the server says of itself and the model."""
        meta = mapping(self._listed.get("meta"))
        # vLLM and SGLang; llama.cpp for one request; old llama.cpp for the training context.
        lengths = (self._listed.get("max_model_len"), meta.get("n_ctx"), meta.get("n_ctx_train"))
        owner = name(self._listed.get("owned_by"))
        resolved = Resolved(
            engine=self._command.engine,
            model=self._model,
            architecture="not told by the server",
            kernel=f"server ({owner})" if owner else "server",
            dtype="not told",
            device=self._device,
            device_name=self._where,
            attention="not told",
            decode="server, " + ("chat" if self._chat else "completion"),
            context_length=next((n for length in lengths if (n := count(length)) > 0), 0),
            chat_template=self._chat,
            tokenizer_hash="",
            threads=0,
            libraries={
                **versions(library.package for library in self._command.needs),
                **({"server": self._build} if self._build else {}),
            },
        )
        return self._ollama.described(resolved) if self._ollama else resolved

    @property
    def counts(self) -> bool:
        """Whether the server has counted its tokens."""
        return self._counts

    @property
    def timeout_s(self) -> float:
        """Longest silence, in seconds, before or in the middle of an answer."""
        return self._timeout_s

    @property
    def keeps_prompts(self) -> bool:
        """Whether it caches prompts even if the request forbids it."""
        return self._build == ollama.FINGERPRINT

    @property
    def note(self) -> str:
        """What the user must know about the figures."""
        counted = (
            "tok/s and TPOT use the server's count of tokens"
            if self._counts
            else "the server counts no tokens, so tok/s and TPOT are not known"
        )
        own = "it may answer from its own prompt cache"
        sampling = [] if self._dialect.whole else ["top-p"]
        sampling += [] if self._dialect.neutral else ["top-k and repetition penalty"]
        if sampling:
            own += f", and samples with its own {', '.join(sampling)}"
        parts = [
            "a server: times are those of arrival here, ITL is from chunk to chunk",
            "" if self._streams else "it does not stream: TTFT is the time of the whole answer",
            counted,
            self._ollama.behaviour if self._ollama else own,
            self._refusals.note,
        ]
        return "; ".join(filter(None, parts))

    def ledger(self) -> Ledger:
        """Return an empty ledger: a client does not know a server's memory."""
        now = time.perf_counter_ns()
        return Ledger(self._device, -1, {}, -1, -1, -1, -1, -1, -1, now)

    def score_prompt(self, ids: list[int]) -> list[TokenLogprobs]:
        """Return how likely each of the tokens `ids` is, but the first. Raises Refused."""
        with self._connection.reading_at_most(MOST_BYTES_A_POSITION * len(ids)):
            found: list[TokenLogprobs] = self.run(read(self._client, self._model, ids))
        return found

    def forget(self) -> None:
        """Do nothing: each request carries the whole chat."""

    def score_tokens(self, request: ScoreTokens, overtaken: Callable[[], bool]) -> TokenScores:
        """Return the reason why this is impossible: a server sends no token ids."""
        del overtaken
        return TokenScores(request.number, problem="a server tells no token ids")

    # ------------------------------------------------------------ answering

    def answer(
        self,
        request: Generate,
        received_ns: int,
        outbox: Outbox,
        stopped: Callable[[int], bool],
    ) -> None:
        """Stream one answer to `outbox` until it ends or `stopped(turn)`. Raises Refused."""
        if request.prompt_tokens:
            raise Refused(
                "unsupported",
                "a prompt cannot be cut to a number of tokens: a server tells no token ids",
                "measure without --prompt-tokens",
            )
        outbox.send(Started(request.turn, received_ns, 0, 0))
        stream = _Stream(request.turn, served_splitter(self._thought_marks))
        whole = self.run(self._until_stopped(request, outbox, stream, stopped))
        answer, thought = stream.splitter.end()
        usage = stream.usage or Usage()
        text, thoughts = stream.text + answer, stream.thoughts + thought
        if not thoughts:
            text, thoughts = split_at_end(text)
        reason, counted = self._end(request, stream, usage) if whole else ("stop", usage.output)
        outbox.send(
            Finished(
                turn=request.turn,
                reason=reason,
                output_tokens=counted,
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
        """Return why a whole answer ended, in quantchat's words, and its number of tokens."""
        reason, counted = _REASONS.get(stream.reason, stream.reason), usage.output
        if reason == "eos" and counted == stream.chunks + 1:
            # It counts the end token, which is no part of an answer and which it does not send.
            counted = stream.chunks
        if reason == "length" and 0 <= counted < request.max_new_tokens:
            reason = "context"  # vLLM accepts a prompt that leaves less room than requested
        known = usage.prompt >= 0 and usage.output >= 0
        if (
            self._ollama
            and known
            and self._ollama.dropped(request.messages, usage.prompt, usage.output)
        ):
            reason = "context"
        return reason, counted

    async def _until_stopped(
        self,
        request: Generate,
        outbox: Outbox,
        stream: _Stream,
        stopped: Callable[[int], bool],
    ) -> bool:
        """Return whether the answer ended by itself. Raises TimeoutError for a silent server."""
        reading = asyncio.ensure_future(self._read(request, outbox, stream))
        while not reading.done():
            silent = time.monotonic() - stream.heard_s > self._timeout_s
            if silent or stopped(request.turn):
                reading.cancel()  # closes the stream, which tells the server to stop
                await asyncio.wait([reading])
                if not reading.cancelled():
                    break
                if silent and not stream.reason:
                    # Keep-alives or single bytes may still arrive.
                    raise TimeoutError
                return silent
            await asyncio.wait([reading], timeout=STOP_S)
        await reading
        return True

    async def _read(self, request: Generate, outbox: Outbox, stream: _Stream) -> None:
        """Read the answer; ask again without the parameters that a refusal names."""
        while True:
            try:
                await self._read_answer(request, outbox, stream)
                return
            except Exception as error:
                of_request = not stream.chunks and is_of_the_request(error)
                if not (of_request and self._refusals.learn(error, also_set=True)):
                    raise
            outbox.send(Note(self.note))
            self._restart(request, outbox, stream)

    def _restart(self, request: Generate, outbox: Outbox, stream: _Stream) -> None:
        """Let the times of the answer begin now."""
        outbox.send(Started(request.turn, time.perf_counter_ns(), 0, 0))
        stream.heard_s = time.monotonic()

    async def _read_answer(self, request: Generate, outbox: Outbox, stream: _Stream) -> None:
        records = await self._begin(request, outbox, stream)
        most = MOST_CHUNKS_A_TOKEN * request.max_new_tokens + MOST_CHUNKS
        try:
            async with contextlib.aclosing(records):
                async for record in records:
                    self._take(record, outbox, stream)
                    if stream.chunks > most:
                        said = f"it goes on after the {request.max_new_tokens} requested tokens"
                        raise cut_off(self._where, said)
        except Exception as error:
            if not is_transport(error):
                raise
            if not stream.reason:
                if is_timeout(error):
                    raise
                raise cut_off(self._where, str(error) or type(error).__name__) from error
            # After the reason only a token count could follow.
        if not stream.reason:
            why = ollama.why_cut(stream.last) if self._ollama else ""
            raise cut_off(self._where, why or "it ended in the middle of the answer")
        if stream.reason == "error":
            raise cut_off(self._where, "it ended the answer with an error that it does not name")

    async def _begin(
        self, request: Generate, outbox: Outbox, stream: _Stream
    ) -> AsyncGenerator[Record, None]:
        if self._ollama:
            await asyncio.wait_for(self._ollama.load(), self._timeout_s)
            self._restart(request, outbox, stream)  # a TTFT does not include loading a model
        return await self.records(request)

    def _take(self, record: Record, outbox: Outbox, stream: _Stream) -> None:
        now = time.perf_counter_ns()
        before = stream.usage or Usage()
        if record.usage is not None:
            stream.usage = before.updated(record.usage)
        counted = (stream.usage or before).output
        said = record.text or record.thought
        if said or record.reason or counted > before.output:
            stream.heard_s = time.monotonic()
        over = bool(stream.reason)  # LiteLLM's count follows, with a choice beside it
        stream.reason = record.reason or stream.reason
        if record.reason == _SPELT_END:
            return
        if not said:
            # A token may have no text: half a character, or an end token with ignore_eos. It counts
            # nevertheless, or the last tokens would seem to take no time. Only servers that count
            # in each chunk show it: with others the first count is that of the whole answer and
            # comes with the reason for the end.
            goes_on = not over and record.reason in ("", "length")
            along = before.output >= stream.chunks > 0
            if not (goes_on and along and counted > before.output):
                return
        stream.size += len(json.dumps(record.text)) + len(json.dumps(record.thought))
        if stream.size > MOST_TEXT:
            raise cut_off(self._where, f"the answer is longer than {MOST_TEXT >> 20} MiB")
        piece, thought = stream.splitter.feed(record.text)
        thought = record.thought + thought
        stream.chunks += 1
        stream.text += piece
        stream.thoughts += thought
        stream.last.append(record.text)
        outbox.send(Tokens(stream.turn, [NO_ID], [piece], [now], [thought] if thought else []))

    # ------------------------------------------------------------ requests

    async def records(self, request: Generate) -> AsyncGenerator[Record, None]:
        """Send the request; return the records of the answer once it begins.

        Several requests can be open at once in the loop of `run`.
        """
        arguments = request_arguments(
            request,
            model=self._model,
            chat=self._chat,
            dialect=self._dialect,
            template=self._template,
            ollama=self._ollama is not None,
        )
        api = self._client.chat.completions if self._chat else self._client.completions
        create, arguments = api.with_streaming_response.create, self._refusals.applied(arguments)
        limit = MOST_BYTES + MOST_BYTES_A_TOKEN * request.max_new_tokens
        with self._connection.reading_at_most(limit):
            try:
                opening = create(**arguments)
                response = await opening.__aenter__()
            except Exception as error:
                if is_timeout(error) or not is_transport(error):
                    raise
                opening = create(**arguments)  # an idle connection may have been closed
                response = await opening.__aenter__()
        return _records(opening, response)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return the result of the coroutine `work`. Raises Refused if the server refuses."""
        try:
            return self._loop.run_until_complete(work)
        except Exception as error:
            told = self.refusal(error)
            if told is None or told is error:
                raise
            raise told from error

    def refusal(self, error: Exception) -> Refused | None:
        """Return what `error`, raised by a request, means for the user; None if it is a bug."""
        return _refused(error) or refusal(
            error,
            where=self._where,
            model=self._model,
            key_env=self._key_env,
            has=self._has,
        )


def _refused(error: BaseException | None) -> Refused | None:
    """Return the Refused of this side that the client has wrapped, or None."""
    while error is not None and not isinstance(error, Refused):
        error = error.__cause__
    return error


DRAIN_S = 0.2
"""Seconds to wait for the rest of a finished response, so that its connection can be reused."""


async def _records(opening: Any, response: Any) -> AsyncGenerator[Record, None]:
    """Yield the records of `response`, and close it in any case."""
    try:
        reader = StreamReader()
        async with contextlib.aclosing(response.iter_bytes()) as pieces:
            async for data in pieces:
                for record in reader.feed(data):
                    yield record
                if reader.over:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(_drain(pieces), DRAIN_S)
                    break
        for record in reader.end():
            yield record
    finally:
        await opening.__aexit__(None, None, None)


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    async for _ in pieces:
        pass
