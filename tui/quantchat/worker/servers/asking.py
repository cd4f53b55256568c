"""What a server is asked for: OpenAI's parameters, and what servers add to them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from quantchat.wire.messages import Generate
from quantchat.worker.servers.refusals import named_parameters

_ALL = 1 << 30
"""A `top_k` that leaves nothing out. 0 says that to some servers, and others refuse it."""


@dataclass(frozen=True)
class Dialect:
    """What a server takes that is not OpenAI's own."""

    neutral: bool
    """That no top-k, no penalty and, of a prompt to be measured, no prompt cache is wished. Left
    unsaid, some servers have their own: a repetition penalty of 1.1 in llama-cpp-python; vLLM reads
    the model's `generation_config`; both vLLM and llama.cpp keep prompts."""
    usage: bool
    """`stream_options.include_usage`."""
    along: bool
    """That it counts as it goes: OpenVINO's server takes no other `stream_options`."""
    whole: bool
    """A `top_p` of 1, which says that nothing is left out. TGI takes less than 1 only; left unsaid,
    some servers have their own, as with `neutral`."""


DIALECTS = tuple(
    one
    for one in (Dialect(*takes) for takes in product((True, False), repeat=4))
    if (one.neutral and one.usage) or not one.along
)
"""The richest first: a server that knows one part of it not refuses all."""


class Refusals:
    """What a server was seen to refuse of OpenAI's own parameters, by the names in its refusals."""

    def __init__(self) -> None:
        self.without: list[str] = []
        """Parameters that are left out."""
        self.limit = "max_tokens"
        """Its name for the longest answer."""

    def learn(self, error: Exception) -> bool:
        """Whether `error` names a parameter that can be left out, or renamed, from now on."""
        named = named_parameters(error)
        if "max_tokens" in named and self.limit == "max_tokens":
            self.limit = "max_completion_tokens"
            return True
        found = [one for one in _LEFT_OUT if one in named and one not in self.without]
        self.without += found
        return bool(found)

    def applied(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`arguments` as the server takes them."""
        left = {key: value for key, value in arguments.items() if key not in self.without}
        if self.limit != "max_tokens":
            more = {self.limit: left.pop("max_tokens")}
            left["extra_body"] = {**(left.get("extra_body") or {}), **more}
        return left

    @property
    def note(self) -> str:
        """What is left out or renamed, for the note of the variant."""
        parts = []
        if self.without:
            names = " and ".join(self.without)
            parts.append(f"asked without {names}, which it refuses: it has its own")
        if self.limit != "max_tokens":
            parts.append(f"asked with {self.limit} for max_tokens, which it refuses")
        return "; ".join(parts)


_LEFT_OUT = ("temperature", "seed")
"""Parameters that may be left out; without `max_tokens` an answer would have no end."""


def asked(
    request: Generate,
    *,
    model: str,
    chat: bool,
    dialect: Dialect,
    template: Mapping[str, bool | int | str],
    ollama: bool = False,
) -> dict[str, Any]:
    """The arguments for the client. What was wished for is asked of each server, come what may.

    `template` is for the variables of a chat template, of which `ollama` knows but whether a model
    thinks, by another name.
    """
    sampling = request.sampling
    more: dict[str, Any] = {}  # vLLM, SGLang and llama.cpp know these
    if template and chat:
        more["chat_template_kwargs"] = dict(template)
        if ollama and template.get("enable_thinking") is False:
            more["reasoning_effort"] = "none"  # which vLLM refuses
    if sampling.top_k:
        more["top_k"] = sampling.top_k
    elif dialect.neutral and sampling.temperature:
        more |= {"top_k": _ALL, "min_p": 0.0}
    if dialect.neutral:
        # OpenAI's own are none by default. Ollama has those of its Modelfile unless it is told.
        more |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
    if dialect.neutral or sampling.repetition_penalty != 1:
        more["repetition_penalty"] = more["repeat_penalty"] = sampling.repetition_penalty
    if dialect.neutral and request.fresh:
        # llama.cpp's word for it; vLLM's, to whom a salt makes it another prompt; and LiteLLM's,
        # which may keep whole answers.
        more |= {"cache_prompt": False, "cache_salt": secrets.token_hex(16)}
        more["cache"] = {"no-cache": True}
    if request.ignore_eos:
        more["ignore_eos"] = True
    arguments: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_new_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "stream": True,
        "extra_body": more or None,
    }
    if sampling.top_p < 1 or (dialect.whole and sampling.temperature):
        arguments["top_p"] = sampling.top_p
    if dialect.usage:
        arguments["stream_options"] = {"include_usage": True}
        if dialect.along:
            # So vLLM and SGLang count as they go, and an answer that is stopped is counted too.
            arguments["stream_options"]["continuous_usage_stats"] = True
    if chat:
        arguments["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
    else:
        arguments["prompt"] = "\n".join(message.content for message in request.messages)
    return arguments
