"""Lets EleutherAI's lm-evaluation-harness ask a server, as its `local-completions` does.

Unlike `local-completions`, it tries all three ways of `prompt_logprobs` and needs no further
package. It uses the client of all other commands, so it supports API keys and servers that
quantchat starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantchat.wire.messages import Sampling
from quantchat.worker.failures import Refused
from quantchat.worker.harness_model import HarnessModel
from quantchat.worker.servers.client import ServerClient

_CONTEXT = 2048
"""Most tokens of a prompt if the server does not name its limit, as in the harness."""


class ServedLM(HarnessModel):
    """Answers with the server of `client`; `tokenizer` must be the served model's."""

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
