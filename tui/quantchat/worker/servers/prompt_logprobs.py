"""Ask a server for the log-probabilities of the tokens of a prompt.

The prompt is sent as token ids, so the server's tokenizer plays no part. Three methods are tried,
in this order:

- By id: vLLM's parameter `prompt_logprobs` gives the likeliest tokens of each position by id.
- By echo: the parameters `echo` and `logprobs` of OpenAI's older completions API give the likeliest
  tokens as text only. So only two values are used at each position: the log-probability of the
  prompt's own token, and that of the likeliest token.
- By forcing each token: llama.cpp's server reports `logprobs` only for generated tokens, computed
  before sampling settings and `logit_bias` are applied. So a large `logit_bias` makes the server
  generate each token of the prompt. That takes one request for each token, for which the server
  computes only this token, because the tokens before it are in its cache.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantchat.worker.failures import Refused
from quantchat.worker.servers.refusals import is_of_the_request

TOP = 20
"""Number of likeliest tokens that are requested at each position: vLLM's limit, unless vLLM was
started with --max-logprobs."""
MOST_BYTES_A_POSITION = 8192
"""Most bytes of a response for each position of the prompt, with the likeliest tokens."""
_FORCE = 1e6
"""Added to the logit of a token that must be generated: far larger than any logit."""


@dataclass(frozen=True)
class TokenLogprobs:
    """The log-probabilities that a server reports for one position of a prompt, in nats."""

    own: float
    """Log-probability of the prompt's own token."""
    likeliest: Mapping[int, float]
    """Log-probabilities of the likeliest tokens, by id; empty if the server reports no ids."""
    best: float | None = None
    """Log-probability of the likeliest token; None if the server does not report it."""


_Way = Callable[[Sequence[int], int], Awaitable[list[TokenLogprobs]]]
"""One of the three methods; the arguments are those of `PromptLogprobs.read`."""


class PromptLogprobs:
    """Asks the server of `client` by the first of the three methods that the server supports."""

    def __init__(self, client: Any, model: str) -> None:
        self._client = client
        self._model = model
        self._ways: list[_Way] = [self._by_id, self._by_echo, self._by_forcing_each]
        """The methods that the server has not refused, in the order in which they are tried."""
        self._works = False
        """Whether the server supports the first of `_ways`: it has answered by this method."""

    async def read(self, ids: Sequence[int], first: int = 1) -> list[TokenLogprobs]:
        """Return the log-probabilities of the tokens `ids[first:]` of the prompt `ids`.

        `first` is at least 1, because the first token has no probability. Raises Refused if the
        server supports none of the methods.
        """
        while self._ways:
            way = self._ways[0]
            try:
                found = await way(ids, first)
            except (LookupError, TypeError, ValueError, AttributeError):
                if self._works:
                    raise
            except Exception as error:
                if self._works or not is_of_the_request(error):
                    raise
            else:
                self._works = True
                return found
            if way in self._ways:  # a request that runs at the same time may have removed it
                self._ways.remove(way)  # the server refuses or ignores this method's parameters
        raise Refused(
            "unsupported",
            "the server gives no log-probabilities of a prompt's tokens",
            "docs/how-to/servers.md names servers that do",
        )

    async def _by_id(self, ids: Sequence[int], first: int) -> list[TokenLogprobs]:
        entries = (await self._choice(ids, prompt_logprobs=TOP))["prompt_logprobs"]
        if len(entries) != len(ids):
            raise ValueError("not one entry for each token")
        return [
            _named(token, {int(one): float(about["logprob"]) for one, about in entry.items()})
            for token, entry in zip(ids[first:], entries[first:], strict=True)
        ]

    async def _by_echo(self, ids: Sequence[int], first: int) -> list[TokenLogprobs]:
        logprobs = (await self._choice(ids, echo=True, logprobs=1))["logprobs"]
        own = logprobs["token_logprobs"]
        if len(own) not in (len(ids), len(ids) + 1):  # with or without the generated token
            raise ValueError("not one entry for each token")
        top = logprobs.get("top_logprobs") or [None] * len(own)
        return [
            TokenLogprobs(float(own), {}, max(map(float, best.values())) if best else None)
            for own, best in zip(own[first : len(ids)], top[first : len(ids)], strict=True)
        ]

    async def _by_forcing_each(self, ids: Sequence[int], first: int) -> list[TokenLogprobs]:
        found = []
        for place in range(first, len(ids)):
            forced = {str(ids[place]): _FORCE}
            choice = await self._choice(ids[:place], logprobs=TOP, logit_bias=forced)
            (entry,) = choice["logprobs"]["content"]
            if entry["id"] != ids[place]:
                raise ValueError("the server does not apply the bias")
            named = {int(one["id"]): float(one["logprob"]) for one in entry["top_logprobs"]}
            if not named:
                raise ValueError("the server names no likeliest tokens")
            found.append(_named(ids[place], {**named, ids[place]: float(entry["logprob"])}))
        return found

    async def _choice(self, ids: Sequence[int], **more: Any) -> Any:
        body = {"model": self._model, "prompt": list(ids), "max_tokens": 1, "temperature": 0}
        found = await self._client.post("/completions", body={**body, **more}, cast_to=object)
        return found["choices"][0]


def _named(token: int, logprobs: Mapping[int, float]) -> TokenLogprobs:
    return TokenLogprobs(logprobs[token], logprobs, max(logprobs.values()))
