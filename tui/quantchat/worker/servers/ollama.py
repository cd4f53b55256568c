"""Ollama, which tells more of a model than OpenAI's protocol has words for: https://docs.ollama.com.

Its OpenAI side takes no top-k, min-p or repetition penalty and no word against its prompt cache. It
drops in silence what its context has no room for, and unloads a model that was idle, or that had to
make room.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from quantchat.wire.messages import Message
from quantchat.wire.variant import Resolved
from quantchat.worker.servers.stream import count, mapping, name

FINGERPRINT = "fp_ollama"
"""How it signs what it says in OpenAI's protocol."""
LATEST = ":latest"
"""What it adds to a name without a tag."""

MOST_REPEATED = 31
"""Chunks alike after which it breaks off, unsaid, where it applies the template itself."""
_NO_PENALTY_SINCE = (0, 32, 10)
"""Until then a model whose Modelfile says nothing had a `repeat_penalty` of 1.1."""
_SETS_NOTHING = {"top_k": 0.0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}
"""Parameters that cannot be asked for, and their values without effect."""
_WEIGHTS = re.compile(r"^FROM .*\bsha256-([0-9a-f]{64})$", re.MULTILINE)
"""Where a Modelfile that is shown names the file of weights, which bears its SHA-256."""
_KEPT = (4, 5)
"""Tokens of the beginning that stay where it cuts a prompt, without and with a BOS token."""


class Ollama:
    """One model of an Ollama."""

    def __init__(self, client: Any, model: str, version: str, shown: dict[str, Any]) -> None:
        self._client = client
        self._model = model
        self._version = version
        self._shown = shown
        self.context = 0
        """Tokens that it has room for; 0: not told."""
        self.size, self.on_gpu = 0, 0
        """Bytes that it counts for the model, and those of them on a GPU; 0: not told."""
        self._read: tuple[Sequence[Message], int] | None = None
        """The last prompt, and the tokens of it and of its answer."""

    async def load(self) -> None:
        """Have the model loaded, at once where it is. Raises what the client raises."""
        asked = {"model": self._model, "stream": False}
        await self._client.post("/api/generate", body=asked, cast_to=object)
        if not self.context:
            listed = mapping(await self._client.get("/api/ps", cast_to=object)).get("models")
            names = (self._model, self._model + LATEST)
            models = [mapping(one) for one in listed] if isinstance(listed, list) else []
            # Another may have taken its room.
            running = next((one for one in models if one.get("name") in names), {})
            self.context = max(0, count(running.get("context_length")))
            self.size = max(0, count(running.get("size")))
            self.on_gpu = min(max(0, count(running.get("size_vram"))), self.size)

    def told(self, resolved: Resolved) -> Resolved:
        """`resolved`, with what it tells of the model."""
        details, about = mapping(self._shown.get("details")), mapping(self._shown.get("model_info"))
        dtype = name(details.get("quantization_level")) or resolved.dtype
        weights = _WEIGHTS.search(str(self._shown.get("modelfile") or ""))
        return replace(
            resolved,
            kernel=f"server (Ollama, {dtype})",  # the screen shows no dtype of a server
            dtype=dtype,
            context_length=self.context,
            parameters=max(0, count(about.get("general.parameter_count"))),
            checkpoint_hash=weights[1] if weights else "",
            libraries={**resolved.libraries, "server": f"ollama {self._version}"},
        )

    @property
    def ways(self) -> str:
        """What it does of its own accord, for the end of a sentence."""
        sampling = self._sampling()
        own = f", samples by {', '.join(sampling)} of its own" if sampling else ""
        room = f"its context of {self.context} tokens" if self.context else "its context"
        rest = "; its Modelfile adds a system prompt" if self._shown.get("system") else ""
        if self.size:  # a part that lies on no GPU slows the whole, and Ollama says it nowhere else
            share = f"{self.on_gpu / self.size:.0%}" if self.on_gpu else "none"
            rest += f"; it counts {self.size / 2**30:.2f} GiB for the model, {share} of it on a GPU"
        return (
            f"Ollama keeps prompts even if asked not to{own}, and drops silently what {room} "
            f"cannot hold{rest}"
        )

    def _sampling(self) -> list[str]:
        """The parameters that stand whatever is asked for, where they have an effect."""
        stand = {"top_k": "40"}
        version = tuple(int(one) for one in re.findall(r"\d+", self._version)[:3])
        if (0, 0, 0) < version < _NO_PENALTY_SINCE:  # a build of one's own may call itself 0.0.0
            stand["repeat_penalty"] = "1.1"
        for line in str(self._shown.get("parameters") or "").splitlines():
            name, _, value = line.strip().partition(" ")
            if name in _SETS_NOTHING:
                stand[name] = value.strip()
        return [
            f"{name} {value}"
            for name, value in stand.items()
            if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", value) or float(value) != _SETS_NOTHING[name]
        ]

    def dropped(self, messages: Sequence[Message], prompt: int, output: int) -> bool:
        """Whether it left out part of a prompt, or of what it had read while it answered.

        By its counts of tokens, `prompt` and `output`. It says nothing of it, and what it drops of
        a chat to make room for a longer prompt is not always seen.
        """
        before, self._read = self._read, (messages, prompt + output)
        if self.context:
            # So much it leaves of a prompt that is too long.
            left = [self.context - (self.context - kept) // 2 for kept in _KEPT]
            if prompt + output > self.context or prompt in left:
                return True
        if before is None:
            return False
        earlier, read = before
        goes_on = len(messages) > len(earlier) and messages[: len(earlier)] == earlier
        return goes_on and prompt < read


async def found(client: Any, base_url: str, model: str, timeout_s: float) -> Ollama | None:
    """The Ollama that `client` asks at `base_url`, where it answers each question in `timeout_s`.

    None where only its OpenAI side is reached, or the model is one of its cloud's.
    """
    root, _, path = base_url.rstrip("/").rpartition("/")
    if path != "v1":
        return None
    native = client.with_options(base_url=root)
    try:
        version = await asyncio.wait_for(native.get("/api/version", cast_to=object), timeout_s)
        asked = native.post("/api/show", body={"model": model}, cast_to=object)
        shown = await asyncio.wait_for(asked, timeout_s)
        if shown.get("remote_host"):
            return None
        one = Ollama(native, model, name(version["version"]), shown)
        await asyncio.wait_for(one.load(), timeout_s)
    except Exception:  # noqa: BLE001 - a proxy before it answers what it likes
        return None
    return one


def why_cut(last: Sequence[str]) -> str:
    """Why it ended a stream without an end, by the `last` chunks; empty where they do not tell."""
    if len(last) == MOST_REPEATED and len({piece.strip() for piece in last}) == 1:
        return f"Ollama breaks off an answer that says the same {MOST_REPEATED} times on end"
    return ""
