"""Answers of an OpenAI-compatible server, streamed, with the times of their arrival.

The protocol: https://platform.openai.com/docs/api-reference/chat/create-streaming. A server sends
chunks of text, as a rule a token each, and no token ids. Times are those of the chunks; how many
tokens they held is known only where the server counts them (`usage`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from quantchat.worker.failures import Refused
from quantchat.worker.outbox import Outbox
from quantchat.worker.protocol import (
    NO_ID,
    Finished,
    Force,
    Forced,
    Generate,
    Load,
    Message,
    Sampling,
    Started,
    Tokens,
)
from quantchat.worker.servers import ollama
from quantchat.worker.servers.asking import DIALECTS, asked
from quantchat.worker.servers.refusals import cut_off, is_of_the_request, is_transport, refusal
from quantchat.worker.variant import SERVER, STARTED_SERVER, Ledger, Resolved
from quantchat.worker.versions import versions

STOP_S = 0.02
"""How often a stop is looked for while nothing arrives."""

CONNECT_S = 5.0

_SPELT_END = "eos_token"
"""TGI's reason in a completion, of a chunk whose text is the end token's: no answer has it."""
_REASONS = {"stop": "eos", _SPELT_END: "eos", "length": "length"}
"""Reasons for an end by our names."""


@dataclass
class _Stream:
    """One answer as it arrives."""

    text: str = ""
    chunks: int = 0
    reason: str = ""
    usage: Any = None
    last: deque[str] = field(default_factory=lambda: deque(maxlen=ollama.MOST_REPEATED))
    """The texts of the last chunks."""


class RemoteDecoder:
    """Stands where a `Decoder` stands, and asks a server instead of a model."""

    def __init__(self, command: Load) -> None:
        try:
            import openai
        except ModuleNotFoundError as error:
            raise Refused(
                "missing_library",
                f"the client that asks servers is not installed: {error.name}",
                "python -m pip install 'quantchat[servers]'",
            ) from error

        options = command.options
        self._model = command.model
        self._url = str(options["base_url"])
        self._where = urlsplit(self._url).netloc
        self._chat = options["api"] == "chat"
        self._template: dict[str, bool | int | str] = options.get("chat_template_kwargs", {})
        self._key_env = str(options.get("key_env") or "")
        timeout = openai.Timeout(float(options["timeout_s"]), connect=CONNECT_S)
        # Retries would wait, unseen, inside a TTFT: this class tries again where that is right.
        self._client = openai.AsyncOpenAI(
            base_url=self._url, api_key=self._key(), timeout=timeout, max_retries=0
        )
        self._device = STARTED_SERVER if options.get("server") else SERVER
        self._loop = asyncio.new_event_loop()
        self._dialect = DIALECTS[0]
        self._counts = False
        """Whether the server was seen to count its tokens."""
        self._build = ""
        """What it says it is: as a rule its version."""
        self._has: list[str] = []
        """The names it lists, where the model's is none of them."""
        self._told: Any = None
        """What it lists of the model."""
        self._ollama: ollama.Ollama | None = None

    def _key(self) -> str:
        if not self._key_env:
            return "none"  # the client insists on one; servers without keys look at none
        key = os.environ.get(self._key_env, "")
        if not key:
            raise Refused(
                "server_denied",
                f"the environment variable {self._key_env} is not set",
                "set it to the server's key before quantchat starts, or take key_env away",
            )
        return key

    # ------------------------------------------------------------ loading

    def connect(self) -> None:
        """Ask what the server has, and for one token. Raises Refused."""
        self._run(self._list())
        self._run(self._warm_up())
        if self._build == ollama.FINGERPRINT:
            self._ollama = self._run(ollama.found(self._client, self._url, self._model))

    async def _list(self) -> None:
        import openai

        try:
            listed = [model async for model in self._client.models.list()]
        except openai.APITimeoutError:
            raise  # it would be waited for twice
        except Exception:  # noqa: BLE001 - a page of HTML raises what it likes
            return  # not every server lists; the first request will tell
        names = (self._model, self._model + ollama.LATEST)
        self._told = next((model for model in listed if model.id in names), None)
        self._has = [] if self._told else [model.id for model in listed]

    async def _warm_up(self) -> None:
        # Warm and fresh, so that it is also asked what only sampling and measuring need.
        sampling = Sampling(temperature=1.0)
        request = Generate(-1, [Message("user", "Hi")], sampling, max_new_tokens=1, fresh=True)
        for self._dialect in DIALECTS:
            ended = False
            try:
                async for chunk in await self._open(request):
                    self._counts = self._counts or _counted(chunk) is not None
                    self._build = getattr(chunk, "system_fingerprint", None) or self._build
                    ended = ended or any(one.finish_reason for one in chunk.choices or ())
            except Exception as error:
                if not is_of_the_request(error) or self._dialect == DIALECTS[-1]:
                    raise
            if ended:
                return
        # mlx_lm.server drops the connection over a parameter that it does not take.
        raise cut_off(self._where, "it ended in the middle of the answer")

    def resolved(self) -> Resolved:
        """What is known of it, which is what the server tells."""
        extra = (self._told.model_extra or {}) if self._told is not None else {}
        meta: Any = extra.get("meta")
        given = meta if isinstance(meta, dict) else {}
        # vLLM and SGLang; llama.cpp for one request, and of old what the model was trained for.
        length = extra.get("max_model_len") or given.get("n_ctx") or given.get("n_ctx_train") or 0
        owner = getattr(self._told, "owned_by", "")
        resolved = Resolved(
            engine="openai",
            model=self._model,
            architecture="not told by the server",
            kernel=f"server ({owner})" if owner else "server",
            dtype="not told",
            device=self._device,
            device_name=self._where,
            attention="not told",
            decode="server, " + ("chat" if self._chat else "completion"),
            context_length=int(length) if isinstance(length, int) else 0,
            chat_template=self._chat,
            tokenizer_hash="",
            threads=0,
            libraries={
                **versions(("openai",)),
                **({"server": self._build} if self._build else {}),
            },
        )
        return self._ollama.told(resolved) if self._ollama else resolved

    @property
    def keeps_prompts(self) -> bool:
        """Whether it keeps the prompts that it is asked to forget."""
        return self._build == ollama.FINGERPRINT

    @property
    def note(self) -> str:
        """What must be known of the figures."""
        counted = (
            "tok/s and TPOT by the server's count of tokens"
            if self._counts
            else "the server counts no tokens, so tok/s and TPOT are not known"
        )
        own = "it may answer from a prompt cache of its own"
        sampling = [] if self._dialect.whole else ["top-p"]
        sampling += [] if self._dialect.neutral else ["top-k and repetition penalty"]
        if sampling:
            own += f", and by a {', '.join(sampling)} of its own"
        return (
            "a server: times are of arrival here, ITL from chunk to chunk; "
            f"{counted}; {self._ollama.ways if self._ollama else own}"
        )

    def ledger(self) -> Ledger:
        """Nothing of a server's memory is known to who asks it; its processes may tell."""
        now = time.perf_counter_ns()
        return Ledger(self._device, -1, {}, -1, -1, -1, -1, -1, -1, now)

    def forget(self) -> None:
        """Nothing to forget: each request carries the whole chat."""

    def force(self, request: Force, overtaken: Callable[[], bool]) -> Forced:
        """Not possible: there are no token ids."""
        del overtaken
        return Forced(request.number, problem="a server tells no token ids")

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
        stream = _Stream()
        whole = self._run(self._until_stopped(request, outbox, stream, stopped))
        reason = _REASONS.get(stream.reason, stream.reason or "eos") if whole else "stop"
        usage = stream.usage
        counted = usage.completion_tokens if usage else -1
        if reason == "eos" and counted == stream.chunks + 1:
            # It counts the end token, which it does not send: no variant's answer has it.
            counted = stream.chunks
        if reason == "length" and 0 <= counted < request.max_new_tokens:
            reason = "context"  # vLLM takes a prompt that leaves less room than was asked for
        if self._ollama and usage:
            spent = usage.prompt_tokens, usage.completion_tokens
            if self._ollama.dropped(request.messages, *spent):
                reason = "context"
        details = getattr(usage, "prompt_tokens_details", None)
        outbox.send(
            Finished(
                turn=request.turn,
                reason=reason,
                output_tokens=counted,
                text=stream.text,
                finished_ns=time.perf_counter_ns(),
                chunks=stream.chunks,
                prompt_tokens=usage.prompt_tokens if usage else -1,
                cached_tokens=getattr(details, "cached_tokens", None) or 0,
            )
        )

    async def _until_stopped(
        self,
        request: Generate,
        outbox: Outbox,
        stream: _Stream,
        stopped: Callable[[int], bool],
    ) -> bool:
        """Whether the answer came to its own end."""
        reading = asyncio.ensure_future(self._read(request, outbox, stream))
        while not reading.done():
            if stopped(request.turn):
                reading.cancel()  # closes the stream, by which the server learns of it
                await asyncio.wait([reading])
                if reading.cancelled():
                    return False
                break
            await asyncio.wait([reading], timeout=STOP_S)
        await reading
        return True

    async def _read(self, request: Generate, outbox: Outbox, stream: _Stream) -> None:
        try:
            chunks = await self._begin(request, outbox)
        except Exception as error:
            if not is_transport(error):
                raise
            chunks = await self._begin(request, outbox)  # a kept connection may have died of age
        try:
            async for chunk in chunks:
                self._take(chunk, request.turn, outbox, stream)
        except Exception as error:
            if not is_transport(error):
                raise
            raise cut_off(self._where, str(error) or type(error).__name__) from error
        if not stream.reason:
            why = ollama.why_cut(stream.last) if self._ollama else ""
            raise cut_off(self._where, why or "it ended in the middle of the answer")

    async def _begin(self, request: Generate, outbox: Outbox) -> AsyncIterator[Any]:
        if self._ollama:
            await self._ollama.load()
            # Anew: to load a model is no part of a TTFT.
            outbox.send(Started(request.turn, time.perf_counter_ns(), 0, 0))
        return await self._open(request)

    def _take(self, chunk: Any, turn: int, outbox: Outbox, stream: _Stream) -> None:
        now = time.perf_counter_ns()
        before = stream.usage
        stream.usage = _counted(chunk) or before
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        over = bool(stream.reason)  # and LiteLLM's count follows, beside a choice
        stream.reason = choice.finish_reason or stream.reason
        piece = (_said(choice.delta) if self._chat else choice.text) or ""
        if choice.finish_reason == _SPELT_END:
            return
        # A token may have no text: a half of a letter, or with ignore_eos an end that is no end. It
        # has come all the same, and is counted: without its time the last ones would take none.
        goes_on = not over and choice.finish_reason in (None, "length")
        if not piece and not (stream.chunks and goes_on and _more(stream.usage, before)):
            return
        stream.chunks += 1
        stream.text += piece
        stream.last.append(piece)
        outbox.send(Tokens(turn, [NO_ID], [piece], [now]))

    async def _open(self, request: Generate) -> AsyncIterator[Any]:
        arguments = asked(
            request,
            model=self._model,
            chat=self._chat,
            dialect=self._dialect,
            template=self._template,
            ollama=self._ollama is not None,
        )
        ways = self._client.chat.completions if self._chat else self._client.completions
        opened: Any = await ways.create(**arguments)
        return _closing(opened)

    def _run(self, work: Any) -> Any:
        """The result of the coroutine `work`. Raises Refused for what the server refuses."""
        try:
            return self._loop.run_until_complete(work)
        except Refused:
            raise
        except Exception as error:
            told = refusal(
                error,
                where=self._where,
                model=self._model,
                key_env=self._key_env,
                has=self._has,
            )
            if told is None:
                raise
            raise told from error


def _more(usage: Any, before: Any) -> bool:
    """Whether a server has counted more tokens than it had before."""
    counted = before.completion_tokens if before else 0
    return usage is not None and usage.completion_tokens > counted


async def _closing(stream: Any) -> AsyncIterator[Any]:
    """The chunks of `stream`, which is closed however reading them ends."""
    async with stream:
        async for chunk in stream:
            yield chunk


def _counted(chunk: Any) -> Any:
    """Its count of tokens, if any: in a completion Ollama's is of zeros until the end."""
    usage = getattr(chunk, "usage", None)
    return usage if usage and (usage.prompt_tokens or usage.completion_tokens) else None


def _said(delta: Any) -> str:
    """The text of a chat chunk; a thinking model's thoughts are output as well."""
    thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
    return (thought or "") + (delta.content or "")
