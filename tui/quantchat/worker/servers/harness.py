"""Lets EleutherAI's lm-evaluation-harness evaluate the model of a server.

`ServedLM` takes the place of the harness' own model type `local-completions`. Unlike that, it tries
all three methods of the module `prompt_logprobs`, and needs no further package. It uses the same
client as all other commands, so it supports API keys and servers that quantchat starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantchat.wire.messages import Sampling
from quantchat.worker.failures import Refused
from quantchat.worker.harness_model import HarnessModel
from quantchat.worker.servers.client import ServerClient

_CONTEXT = 2048
"""Context length in tokens if the server does not report it: the harness' own default."""


class ServedLM(HarnessModel):
    """Answers the harness' requests with the server of `client`.

    `tokenizer` must be the tokenizer of the served model; `variables` are those of its chat
    template.
    """

    def __init__(self, client: ServerClient, tokenizer: Any, variables: Mapping[str, Any]) -> None:
        model_info = client.model_info()
        super().__init__(
            model_info.model, tokenizer, variables, model_info.context_length or _CONTEXT
        )
        self._client = client

    def _likelihood(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        # Leave room for one token: the request also generates one.
        ids = [*context, *continuation][-(self._context_length - 1) :]
        logprobs = self._client.score_prompt(ids, max(1, len(ids) - len(continuation)))
        greedy = True
        for one in logprobs:
            if one.best is None:
                raise Refused(
                    "unsupported",
                    "the server does not name the likeliest token of each position",
                    "docs/how-to/tasks.md names servers that do",
                )
            greedy = greedy and one.own >= one.best
        return sum(one.own for one in logprobs), greedy

    def _generated(self, ids: list[int], sampling: Sampling, most: int, until: list[str]) -> str:
        return self._client.continue_prompt(ids, sampling, most, until)
