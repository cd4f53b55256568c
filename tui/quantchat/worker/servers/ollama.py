"""Ollama's own API, which says more about a model than OpenAI's protocol: https://docs.ollama.com.

It is used to tell the user how Ollama behaves. In OpenAI's protocol, Ollama ignores top-k, min-p
and repetition penalty, and a request cannot switch the prompt cache off. Ollama silently drops text
that does not fit into its context. It unloads a model that was idle, or that has to make room for
another model.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from quantchat.wire.messages import Message
from quantchat.wire.variant import ModelInfo
from quantchat.worker.servers.stream import count, mapping, name

FINGERPRINT = "fp_ollama"
"""The value of `system_fingerprint` in Ollama's answers, by which Ollama is recognized."""
LATEST = ":latest"
"""The tag that Ollama adds to a model name without a tag."""

MOST_REPEATED = 31
"""Number of equal chunks in a row after which Ollama silently ends an answer. It does so only if it
applies the chat template itself."""
_NO_PENALTY_SINCE = (0, 32, 10)
"""Before this version of Ollama, the default `repeat_penalty` was 1.1; since then it is 1.0."""
_NEUTRAL = {"top_k": 0.0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}
"""Key: a sampling parameter that a request cannot set; value: the value that has no effect."""
_WEIGHTS = re.compile(r"^FROM .*\bsha256-([0-9a-f]{64})$", re.MULTILINE)
"""The line of a Modelfile that names the weights by their SHA-256."""
_KEPT_TOKENS = (4, 5)
"""How many of the first tokens Ollama keeps when it cuts a prompt: 4, or 5 with a BOS token."""


class Ollama:
    """One model of an Ollama server.

    `client` sends requests to Ollama's own API. `version` is that of Ollama; `show_response` is the
    response to `/api/show`, which describes the model.
    """

    def __init__(
        self, client: Any, model: str, version: str, show_response: Mapping[str, object]
    ) -> None:
        self._client = client
        self._model = model
        self._version = version
        self._show_response = show_response
        self.context = 0
        """Context length in tokens; 0 if unknown."""
        self.size, self.on_gpu = 0, 0
        """Bytes that Ollama reports for the model, in total and on a GPU; 0 if unknown."""
        self._last_chat: tuple[Sequence[Message], int] | None = None
        """The chat in the last request, and the number of tokens of this chat and its answer."""

    async def load(self) -> None:
        """Load the model, if it is not loaded. Raises the client's exceptions."""
        body = {"model": self._model, "stream": False}
        await self._client.post("/api/generate", body=body, cast_to=object)
        if not self.context:
            listed = mapping(await self._client.get("/api/ps", cast_to=object)).get("models")
            names = (self._model, self._model + LATEST)
            models = list(map(mapping, listed)) if isinstance(listed, list) else []
            # The list may lack this model, if another model has replaced it already.
            none: Mapping[str, object] = {}
            running = next((one for one in models if one.get("name") in names), none)
            self.context = max(0, count(running.get("context_length")))
            self.size = max(0, count(running.get("size")))
            self.on_gpu = min(max(0, count(running.get("size_vram"))), self.size)

    def with_details(self, info: ModelInfo) -> ModelInfo:
        """Return `info` with what Ollama reports about the model."""
        details = mapping(self._show_response.get("details"))
        shown_info = mapping(self._show_response.get("model_info"))
        dtype = name(details.get("quantization_level")) or info.dtype
        weights = _WEIGHTS.search(str(self._show_response.get("modelfile") or ""))
        return replace(
            info,
            kernel=f"server (Ollama, {dtype})",  # the screen shows no dtype of a server
            dtype=dtype,
            context_length=self.context,
            parameters=max(0, count(shown_info.get("general.parameter_count"))),
            checkpoint_hash=weights[1] if weights else "",
            libraries={**info.libraries, "server": f"ollama {self._version}"},
        )

    @property
    def behaviour(self) -> str:
        """What Ollama does on its own, as part of the note for the user."""
        sampling = self._sampling()
        own = f", samples with its own {', '.join(sampling)}" if sampling else ""
        room = f"its context of {self.context} tokens" if self.context else "its context"
        rest = "; its Modelfile adds a system prompt" if self._show_response.get("system") else ""
        if self.size:  # weights that are not on a GPU make Ollama slow without any message
            share = f"{self.on_gpu / self.size:.0%}" if self.on_gpu else "none"
            rest += (
                f"; it reports {self.size / 2**30:.2f} GiB for the model, {share} of it on a GPU"
            )
        return (
            f"Ollama caches prompts even if asked not to{own}, and silently drops text that does"
            f" not fit into {room}{rest}"
        )

    def _sampling(self) -> list[str]:
        """Return the sampling parameters that have an effect although no request can set them.

        Each is a name and a value, e.g. `top_k 40`.
        """
        in_effect = {"top_k": "40"}
        version = tuple(int(one) for one in re.findall(r"\d+", self._version)[:3])
        if (0, 0, 0) < version < _NO_PENALTY_SINCE:  # a local build may call itself 0.0.0
            in_effect["repeat_penalty"] = "1.1"
        for line in str(self._show_response.get("parameters") or "").splitlines():
            name, _, value = line.strip().partition(" ")
            if name in _NEUTRAL:
                in_effect[name] = value.strip()
        return [
            f"{name} {value}"
            for name, value in in_effect.items()
            if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", value) or float(value) != _NEUTRAL[name]
        ]

    def dropped(self, messages: Sequence[Message], prompt: int, output: int) -> bool:
        """Return whether Ollama dropped a part of the prompt, or of the chat while it answered.

        `messages` is the chat that was sent; `prompt` and `output` are Ollama's counts of tokens in
        prompt and answer. Ollama does not report that it dropped text, but these counts show it:
        they exceed the context, or the prompt is shorter than the earlier chat that it contains.
        They do not show it if the new messages have more tokens than the dropped text.
        """
        before, self._last_chat = self._last_chat, (messages, prompt + output)
        if self.context:
            # The lengths, in tokens, to which Ollama cuts a prompt that is too long.
            cut_lengths = [
                self.context - (self.context - first_tokens) // 2 for first_tokens in _KEPT_TOKENS
            ]
            if prompt + output > self.context or prompt in cut_lengths:
                return True
        if before is None:
            return False
        earlier, read = before
        goes_on = len(messages) > len(earlier) and messages[: len(earlier)] == earlier
        return goes_on and prompt < read


async def find_ollama(client: Any, base_url: str, model: str, timeout_s: float) -> Ollama | None:
    """Return the model `model` of the Ollama server at `base_url`, and load it there.

    Return None if Ollama's own API cannot be reached, or if the model runs in Ollama's cloud. Each
    request may take `timeout_s` seconds.
    """
    root, _, path = base_url.rstrip("/").rpartition("/")
    if path != "v1":
        return None
    native = client.with_options(base_url=root)
    try:
        version = await asyncio.wait_for(native.get("/api/version", cast_to=object), timeout_s)
        request = native.post("/api/show", body={"model": model}, cast_to=object)
        show_response = await asyncio.wait_for(request, timeout_s)
        if show_response.get("remote_host"):
            return None
        server = Ollama(native, model, name(version["version"]), show_response)
        await asyncio.wait_for(server.load(), timeout_s)
    except Exception:  # noqa: BLE001 - a proxy in front of Ollama may answer anything
        return None
    return server


def why_cut(last: Sequence[str]) -> str:
    """Return why Ollama ended a stream early; empty if the `last` chunks do not show it."""
    if len(last) == MOST_REPEATED and len({piece.strip() for piece in last}) == 1:
        return f"Ollama ends an answer that repeats the same text {MOST_REPEATED} times in a row"
    return ""
