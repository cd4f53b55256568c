"""The client of an OpenAI-compatible server.

The client finds out which parameters the server accepts, sends requests, and describes the server.

The protocol: https://platform.openai.com/docs/api-reference/chat/create-streaming.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from quantchat.common.versions import versions
from quantchat.wire.messages import Generate, LoadModel, Message, Sampling
from quantchat.wire.variant import EXTERNAL_SERVER, STARTED_SERVER, ModelInfo
from quantchat.worker.failures import Refused
from quantchat.worker.servers import ollama
from quantchat.worker.servers.connection import MOST_BYTES, MOST_BYTES_A_TOKEN, Connection
from quantchat.worker.servers.prompt_logprobs import (
    MOST_BYTES_A_POSITION,
    PromptLogprobs,
    TokenLogprobs,
)
from quantchat.worker.servers.refusals import (
    StillLoading,
    cut_off,
    is_of_the_request,
    is_timeout,
    is_transport,
    refusal,
)
from quantchat.worker.servers.request import DIALECTS, Refusals, chat_or_text, request_arguments
from quantchat.worker.servers.stream import Record, StreamReader, count, mapping, name, parsed
from quantchat.worker.servers.tokenizing import answer_tokens

_T = TypeVar("_T")


class ServerClient:
    """Sends requests to one server with the parameters that it accepts, and describes the server.

    All requests run in one event loop (`run`); several can be open at once.
    """

    def __init__(self, command: LoadModel) -> None:
        self._command = command
        self._model = command.model
        self._chat = command.option("api", "") == "chat"
        self._template = command.template_variables
        self._key_env = command.option("key_env", "")
        self.timeout_s = command.option("timeout_s", 120.0)
        self._sampling = command.sampling
        """Sampling settings of the profile; a request may have other settings."""
        own = bool(command.options.get("server"))
        self._connection = Connection(
            command.option("base_url", ""), key_env=self._key_env, timeout_s=self.timeout_s, own=own
        )
        self._client, self.where = self._connection.client, self._connection.where
        self.device = STARTED_SERVER if own else EXTERNAL_SERVER
        self._loop = asyncio.new_event_loop()
        self._dialect = DIALECTS[0]
        self.refusals = Refusals()
        self.counts = False
        """Whether the server has reported a token count."""
        self._streams = True
        """Whether the server streams its answers; otherwise it sends each answer as a whole."""
        self._build = ""
        """The server's `system_fingerprint`, usually a version."""
        self._other_models: list[str] = []
        """Names of the models that the server lists, if the requested model is not among them."""
        self._listed: Mapping[str, object] = {}
        """The entry for the model in the server's list of models; empty if there is none."""
        self.ollama: ollama.Ollama | None = None
        self._logprobs = PromptLogprobs(self._client, self._model)

    # ------------------------------------------------------------ loading

    def connect(self, wait: Callable[[str], None] | None = None) -> None:
        """List the server's models and request one token. Raises Refused.

        If the server responds that it still loads its model, `wait` is called with the server's
        message; when `wait` returns, the server is asked again. Without `wait`, this raises
        `StillLoading`.
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
            found = ollama.find_ollama(
                self._client, self._connection.url, self._model, self.timeout_s
            )
            self.ollama = self.run(found)

    async def _list(self) -> None:
        import openai

        try:
            asked_for = self._client.get("/models", cast_to=object)
            body = await asyncio.wait_for(asked_for, self.timeout_s)
            # The body is a str if the server does not declare it as JSON.
            listed = mapping(parsed(body) if isinstance(body, str) else body).get("data")
        except (openai.APITimeoutError, asyncio.TimeoutError):
            raise  # do not go on: the next request would probably wait for as long again
        except Exception as error:
            if _own_refusal(error) is not None:
                raise
            return  # not every server has a list; `_warm_up` shows whether the server works
        models = [mapping(one) for one in listed] if isinstance(listed, list) else []
        names = (self._model, self._model + ollama.LATEST)
        self._listed = next((model for model in models if model.get("id") in names), {})
        self._other_models = (
            [] if self._listed else [m for one in models if (m := name(one.get("id")))]
        )

    async def _warm_up(self) -> None:
        for self._dialect in DIALECTS:
            if await self._accepts(_trial(self._sampling), last=self._dialect == DIALECTS[-1]):
                break
        else:
            # No dialect led to a complete answer. mlx_lm.server, for example, closes the connection
            # if it does not accept a parameter.
            raise cut_off(self.where, "the stream ended in the middle of the answer")
        if self._sampling.temperature or "temperature" in self.refusals.without:
            return
        # The trial was greedy. Try a temperature above 0 too, which the user may set later.
        accepted = self._dialect
        for self._dialect in DIALECTS[DIALECTS.index(accepted) :]:
            if await self._accepts(_trial(Sampling(temperature=1.0)), last=False, learn=False):
                return
        self._dialect = accepted

    async def _accepts(self, request: Generate, *, last: bool, learn: bool = True) -> bool:
        """Return whether the server answers `request` in the current `request.Dialect`.

        With `last`, a refusal raises an exception; without, it makes this return False. With
        `learn`, parameters that a refusal names are omitted from this request and all later
        requests.
        """
        while True:
            try:
                return await asyncio.wait_for(self._probe(request), self.timeout_s)
            except Exception as error:
                if not is_of_the_request(error):
                    raise
                if learn and self.refusals.learn(error, also_set=last):
                    continue
                if last:
                    raise
                return False

    async def learn_refusals(self, request: Generate) -> None:
        """Send `request` repeatedly until the server refuses no parameter that can be omitted.

        Use this before requests that are not repeated without a refused parameter. Other failures
        are ignored here, because those requests fail in the same way and report it.
        """
        with contextlib.suppress(Exception):  # see above
            await self._accepts(replace(request, max_new_tokens=1), last=True)

    async def _probe(self, request: Generate) -> bool:
        """Send `request` and return whether the answer was complete.

        Also stores what the answer shows about the server.
        """
        ended = False
        async with contextlib.aclosing(await self.records(request)) as records:
            async for record in records:
                counts = record.usage is not None and record.usage.output > 0
                self.counts = self.counts or counts
                self._streams = self._streams and not record.whole
                self._build = record.build or self._build
                ended = ended or bool(record.reason)
        return ended

    def model_info(self) -> ModelInfo:
        """Return what the server reports about itself and the model."""
        meta = mapping(self._listed.get("meta"))
        # `max_model_len`: vLLM and SGLang. `n_ctx`: llama.cpp, the context length of one request.
        # `n_ctx_train`: older llama.cpp, the context length in training.
        lengths = (self._listed.get("max_model_len"), meta.get("n_ctx"), meta.get("n_ctx_train"))
        owner = name(self._listed.get("owned_by"))
        model_info = ModelInfo(
            engine=self._command.engine,
            model=self._model,
            architecture="not reported by the server",
            kernel=f"server ({owner})" if owner else "server",
            dtype="not reported",
            device=self.device,
            device_name=self.where,
            attention="not reported",
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
        return self.ollama.with_details(model_info) if self.ollama else model_info

    @property
    def keeps_prompts(self) -> bool:
        """Whether the server caches prompts even if the request forbids it."""
        return self._build == ollama.FINGERPRINT

    @property
    def note(self) -> str:
        """Notes that tell the user how this server's figures were measured."""
        token_note = (
            "tok/s and TPOT use the server's count of tokens"
            if self.counts
            else "the server does not count tokens, so tok/s and TPOT are not known"
        )
        own = "the server may answer from its own prompt cache"
        sampling = [] if self._dialect.top_p_1 else ["top-p"]
        sampling += [] if self._dialect.neutral else ["top-k and repetition penalty"]
        if sampling:
            own += f", and samples with its own {', '.join(sampling)}"
        parts = [
            "a server: times are when chunks arrive here, ITL is the time between chunks",
            ""
            if self._streams
            else "the server does not stream: TTFT is the time of the whole answer",
            token_note,
            self.ollama.behaviour if self.ollama else own,
            self.refusals.note,
        ]
        return "; ".join(filter(None, parts))

    # ------------------------------------------------------------ requests

    async def records(self, request: Generate) -> AsyncGenerator[Record, None]:
        """Send the request; return the records of the answer as soon as the answer begins.

        Several requests can be open at once in the event loop that `run` uses.
        """
        arguments = request_arguments(
            request,
            model=self._model,
            chat=self._chat,
            dialect=self._dialect,
            template=self._template,
            ollama=self.ollama is not None,
            owner=name(self._listed.get("owned_by")),
        )
        api = self._client.chat.completions if self._chat else self._client.completions
        create, arguments = api.with_streaming_response.create, self.refusals.applied(arguments)
        limit = MOST_BYTES + MOST_BYTES_A_TOKEN * request.max_new_tokens
        with self._connection.reading_at_most(limit):
            try:
                opening = create(**arguments)
                response = await opening.__aenter__()
            except Exception as error:
                if is_timeout(error) or not is_transport(error):
                    raise
                # Try once more, because the server may have closed an idle connection.
                opening = create(**arguments)
                response = await opening.__aenter__()
        return _records(opening, response)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run the coroutine `work` and return its result.

        Errors of the server and the connection are raised as Refused.
        """
        try:
            return self._loop.run_until_complete(work)
        except Exception as error:
            refused = self.refusal(error)
            if refused is None or refused is error:
                raise
            raise refused from error

    def refusal(self, error: Exception) -> Refused | None:
        """Return the Refused that reports `error` to the user; None if `error` is a bug."""
        return _own_refusal(error) or refusal(
            error,
            where=self.where,
            model=self._model,
            key_env=self._key_env,
            has=self._other_models,
        )

    def score_prompt(self, ids: list[int], first: int = 1) -> list[TokenLogprobs]:
        """Return the log-probabilities of the tokens `ids[first:]` of the prompt `ids`.

        Raises Refused if the server does not report them.
        """
        with self._connection.reading_at_most(MOST_BYTES + MOST_BYTES_A_POSITION * len(ids)):
            return self.run(self._logprobs.read(ids, first))

    async def score_answer(
        self, messages: Sequence[Message], answer: str, rows: int = 1
    ) -> list[TokenLogprobs]:
        """Return the log-probabilities of the tokens of `answer` to the chat `messages`.

        Sends `rows` equal requests at once, so that the server computes a batch, and returns the
        result of the first. Raises Refused if the server does not report token ids or
        log-probabilities.
        """
        prompt = chat_or_text(messages, chat=self._chat)
        url = self._connection.url
        ids, before = await answer_tokens(
            self._client, url, self._model, prompt, answer, self._template
        )
        with self._connection.reading_at_most(MOST_BYTES + MOST_BYTES_A_POSITION * len(ids)):
            requests = (self._logprobs.read(ids, before) for _ in range(rows))
            return (await asyncio.gather(*requests))[0]

    def continue_prompt(
        self, ids: list[int], sampling: Sampling, most: int, until: list[str]
    ) -> str:
        """Return the text that the server generates after the tokens `ids`.

        The text ends after `most` tokens, or before one of the stop strings `until`. Only the first
        `MOST_STOPS` of them are sent; the caller looks for the others. Raises Refused.
        """
        body: dict[str, object] = {
            "model": self._model,
            "prompt": ids,
            "max_tokens": most,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "stop": until[:MOST_STOPS],
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k

        async def answered() -> str:
            found: Any = await self._client.post("/completions", body=body, cast_to=object)
            return str(mapping(found["choices"][0]).get("text") or "")

        with self._connection.reading_at_most(MOST_BYTES + MOST_BYTES_A_TOKEN * most):
            return self.run(answered())


MOST_STOPS = 4
"""Most stop strings in a request: OpenAI's limit."""


def _own_refusal(error: BaseException | None) -> Refused | None:
    """Return the Refused that quantchat's own code raised within the `openai` client, or None."""
    while error is not None and not isinstance(error, Refused):
        error = error.__cause__
    return error


DRAIN_S = 0.2
"""Seconds to wait for the rest of a finished response, so that its connection can be reused."""


async def _records(opening: Any, response: Any) -> AsyncGenerator[Record, None]:
    """Yield the records of `response`, and always close it at the end."""
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


def _trial(sampling: Sampling) -> Generate:
    """Return a request for one token, with all parameters that requests may have later.

    With `fresh`, these include the parameters that only measurements need.
    """
    return Generate(-1, [Message("user", "Hi")], sampling, max_new_tokens=1, fresh=True)
