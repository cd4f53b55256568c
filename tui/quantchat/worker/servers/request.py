"""Build the request to a server: OpenAI's parameters, and the extensions of other servers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from quantchat.wire.messages import Generate, Message
from quantchat.worker.failures import Refused
from quantchat.worker.servers.refusals import named_parameters

_ALL_TOKENS = 1 << 30
"""A `top_k` that excludes no token. (Some servers accept 0 for that, others refuse 0.)"""


@dataclass(frozen=True)
class Dialect:
    """Which extensions of OpenAI's protocol a request uses, because the server accepts them."""

    neutral: bool
    """Whether top-k, min-p and penalties that the user has not set are sent with values that have
    no effect, and whether measured prompts switch the server's prompt cache off. If these are not
    sent, some servers use their own values: llama-cpp-python a repetition penalty of 1.1, vLLM the
    model's `generation_config`; and vLLM and llama.cpp cache prompts."""
    usage: bool
    """Whether `stream_options.include_usage` is sent, which asks for token counts at the end."""
    usage_each_chunk: bool
    """Whether `stream_options.continuous_usage_stats` is sent, which asks for token counts in each
    chunk. This is separate from `usage`, because OpenVINO's server accepts only
    `include_usage`."""
    top_p_1: bool
    """Whether `top_p = 1`, which excludes no token, is sent. TGI accepts only values below 1. If no
    value is sent, some servers use their own value."""


DIALECTS = tuple(
    one
    for one in (Dialect(*takes) for takes in product((True, False), repeat=4))
    if (one.neutral and one.usage) or not one.usage_each_chunk
)
"""The dialects in the order in which they are tried, beginning with all extensions, ending with
none. A server that does not know an extension may refuse the whole request."""


class Refusals:
    """The parameters that a server has refused, according to its error messages."""

    def __init__(self) -> None:
        self.without: list[str] = []
        """Parameters that later requests omit."""
        self.limit = "max_tokens"
        """The name of the parameter that limits the length of an answer."""

    def learn(self, error: Exception, *, also_set: bool) -> bool:
        """Record which parameters `error` refuses, so that `applied` omits or renames them.

        Return whether there are any new ones. `max_tokens` can be renamed. The parameters in
        `_OMITTABLE` can be omitted, and with `also_set` those in `_SET` too.
        """
        named = named_parameters(error)
        if "max_tokens" in named and self.limit == "max_tokens":
            self.limit = "max_completion_tokens"
            return True
        omittable = (*_OMITTABLE, *_SET) if also_set else _OMITTABLE
        found = [name for name in omittable if name in named and name not in self.without]
        self.without += found
        return bool(found)

    def applied(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return `arguments` with the refused parameters omitted or renamed."""
        accepted = {key: value for key, value in arguments.items() if key not in self.without}
        if more := accepted.get("extra_body"):
            accepted["extra_body"] = {key: more[key] for key in more if key not in self.without}
        if self.limit != "max_tokens":
            limit = {self.limit: accepted.pop("max_tokens")}
            accepted["extra_body"] = {**(accepted.get("extra_body") or {}), **limit}
        return accepted

    @property
    def note(self) -> str:
        """A note for the user that says which parameters are omitted or renamed; may be empty."""
        parts = []
        if names := " and ".join(one for one in self.without if one != "ignore_eos"):
            parts.append(f"requests omit {names}, which the server refuses: it uses its own values")
        if "ignore_eos" in self.without:
            parts.append("the server refuses ignore_eos, so answers may be shorter than requested")
        if self.limit != "max_tokens":
            parts.append(f"requests name {self.limit}, because the server refuses max_tokens")
        return "; ".join(parts)


_OMITTABLE = ("temperature", "seed", "ignore_eos")
"""Parameters that requests may omit. `max_tokens` is not among them, because without it an answer
could be endless."""
_SET = ("top_p", "top_k", "repetition_penalty", "repeat_penalty")
"""Parameters that are sent because the user has set them, or with neutral values (see `Dialect`).
If a server refuses one of them while the variant is loaded, the next dialect is tried. The
parameter itself is omitted only with the last dialect, or if the server refuses it later, in a
chat."""


_THINKING_LIMITS = {"vllm": "thinking_token_budget", "llamacpp": "thinking_budget_tokens"}
"""Key: `owned_by` in the server's list of models; value: the parameter that limits thoughts."""


def _ignored(server: str, name: str, hint: str) -> Refused:
    """Return the Refused for the setting `name`, which the server would ignore."""
    return Refused("unsupported", f"{server} does not support {name} in requests", hint)


def request_arguments(
    request: Generate,
    *,
    model: str,
    chat: bool,
    dialect: Dialect,
    template: Mapping[str, object],
    ollama: bool = False,
    owner: str = "",
) -> dict[str, Any]:
    """Return the arguments with which the `openai` client sends `request`.

    Settings that the user has changed are sent in every dialect. `model` is the name of the model
    on the server. `chat` says whether the server is asked for a chat or for a completion.
    `template` has the variables of the chat template that the profile sets. `ollama` says that the
    server is Ollama, which supports only the variable `enable_thinking = false`, by another
    parameter. `owner` is `owned_by` in the server's list of models. Raises Refused for a setting
    that the server would ignore.
    """
    sampling = request.sampling
    more: dict[str, Any] = {}  # extensions of vLLM, SGLang and llama.cpp
    if template and chat:
        more["chat_template_kwargs"] = dict(template)
        if ollama and template.get("enable_thinking") is False:
            more["reasoning_effort"] = "none"  # not for other servers: vLLM refuses it
    if sampling.top_k:
        more["top_k"] = sampling.top_k
    elif dialect.neutral and sampling.temperature:
        more |= {"top_k": _ALL_TOKENS, "min_p": 0.0}
    if sampling.min_p and sampling.temperature:
        if ollama:  # Ollama would ignore it
            raise _ignored("Ollama", "min_p", "set min_p = 0, or set it in the Modelfile")
        more["min_p"] = sampling.min_p
    if sampling.logit_bias:
        if ollama:  # Ollama would ignore it
            raise _ignored("Ollama", "logit_bias", "remove logit_bias from the settings")
        more["logit_bias"] = sampling.logit_bias
    if sampling.max_thinking_tokens:
        if owner not in _THINKING_LIMITS:
            raise _ignored(
                "the server",
                "max_thinking_tokens",
                f"set it to 0; servers that support it: {', '.join(_THINKING_LIMITS)}",
            )
        more[_THINKING_LIMITS[owner]] = sampling.max_thinking_tokens
    if sampling.stop and not request.ignore_eos:  # ignore_eos: the length of the answer is fixed
        more["stop"] = sampling.stop
    for name in ("presence_penalty", "frequency_penalty"):
        # OpenAI's defaults are 0. Ollama takes its defaults from the model's Modelfile.
        if dialect.neutral or getattr(sampling, name):
            more[name] = getattr(sampling, name)
    if dialect.neutral or sampling.repetition_penalty != 1:
        more["repetition_penalty"] = more["repeat_penalty"] = sampling.repetition_penalty
    if dialect.neutral and request.fresh:
        # Switch the caches off. `cache_prompt` is llama.cpp's parameter. `cache_salt` is vLLM's:
        # with a new salt no cached prompt matches. `cache` is that of LiteLLM, which may cache
        # whole answers.
        more |= {"cache_prompt": False, "cache_salt": secrets.token_hex(16)}
        more["cache"] = {"no-cache": True}
    if request.ignore_eos:
        more["ignore_eos"] = True
    if owner == "sglang":
        more["return_spec_tokens_details"] = True
    arguments: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_new_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "stream": True,
        "extra_body": more or None,
    }
    if sampling.top_p < 1 or (dialect.top_p_1 and sampling.temperature):
        arguments["top_p"] = sampling.top_p
    if dialect.usage:
        arguments["stream_options"] = {"include_usage": True}
        if dialect.usage_each_chunk:
            # With this, vLLM and SGLang send the token count with each chunk, so that the count is
            # known even if the user stops the answer.
            arguments["stream_options"]["continuous_usage_stats"] = True
    arguments["messages" if chat else "prompt"] = chat_or_text(request.messages, chat=chat)
    return arguments


def chat_or_text(messages: Sequence[Message], *, chat: bool) -> str | list[dict[str, str]]:
    """Return `messages` for a request: as a chat, or joined to the prompt of a completion."""
    if chat:
        return [{"role": message.role, "content": message.content} for message in messages]
    return "\n".join(message.content for message in messages)
