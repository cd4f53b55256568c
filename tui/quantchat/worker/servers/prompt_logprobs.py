"""Ask a server for the log-probabilities of the tokens of a prompt.

The prompt is sent as token ids, so the server's tokenizer plays no part. Two ways are tried: vLLM's
`prompt_logprobs`, which gives the likeliest tokens of each position by id, and `echo` with
`logprobs` of OpenAI's first completions API, which gives them as text: from these only the figure
of the prompt's own token is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantchat.worker.failures import Refused
from quantchat.worker.servers.refusals import is_of_the_request

TOP = 20
"""Number of likeliest tokens that are requested: vLLM's limit, unless started with
--max-logprobs."""
MOST_BYTES_A_POSITION = 8192
"""Most bytes that describe one token with its alternatives."""


@dataclass(frozen=True)
class TokenLogprobs:
    """The log-probabilities that a server reports for one position of a prompt, in nats."""

    own: float
    likeliest: Mapping[int, float]
    """Of the likeliest tokens, by id; empty if the server gives no ids."""
    best: float | None = None
    """Of the likeliest token of all; None if the server does not give it."""


async def read(client: Any, model: str, ids: Sequence[int]) -> list[TokenLogprobs]:
    """Return the log-probabilities of each of `ids` except the first. Raises Refused."""
    common = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0}
    for more, parsed in (
        ({"prompt_logprobs": TOP}, _by_id),
        ({"echo": True, "logprobs": 1}, _echoed),
    ):
        try:
            body = await client.post("/completions", body={**common, **more}, cast_to=object)
        except Exception as error:
            if is_of_the_request(error):
                continue  # the server does not support this way
            raise
        try:
            found: list[TokenLogprobs] = parsed(body["choices"][0], ids)
        except (LookupError, TypeError, ValueError, AttributeError):
            continue  # the server ignores this way
        return found
    raise Refused(
        "unsupported",
        "the server gives no log-probabilities of a prompt's tokens",
        "docs/how-to/servers.md names servers that do",
    )


def _by_id(choice: Any, ids: Sequence[int]) -> list[TokenLogprobs]:
    told = choice["prompt_logprobs"]
    if len(told) != len(ids):
        raise ValueError("not one entry for each token")
    found = []
    for token, entry in zip(ids[1:], told[1:], strict=True):
        logprobs = {int(one): float(about["logprob"]) for one, about in entry.items()}
        found.append(TokenLogprobs(logprobs[token], logprobs, max(logprobs.values())))
    return found


def _echoed(choice: Any, ids: Sequence[int]) -> list[TokenLogprobs]:
    told = choice["logprobs"]["token_logprobs"]
    if len(told) not in (len(ids), len(ids) + 1):  # the answer may also contain the generated token
        raise ValueError("not one entry for each token")
    top = choice["logprobs"].get("top_logprobs") or [None] * len(told)
    return [
        TokenLogprobs(float(own), {}, max(map(float, best.values())) if best else None)
        for own, best in zip(told[1 : len(ids)], top[1 : len(ids)], strict=True)
    ]
