"""Tiny GGUF models loaded by llama.cpp, for tests that skip where llama-cpp-python is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quantchat.wire.messages import Generate, LoadModel, Message, Sampling
from quantchat.wire.protocol import Event

if TYPE_CHECKING:
    from quantchat.worker.llama.decoder import LlamaDecoder
    from quantchat.worker.llama.model import LlamaModel

NEEDED = "llama-cpp-python is not installed: python -m pip install 'quantchat[gguf]'"
CHAT = [Message("user", "the other day")]


def command(folder: Path, **options: Any) -> LoadModel:
    """The request to load the only GGUF file in `folder` on the CPU."""
    loader = "quantchat.worker.loaders.gguf"
    return LoadModel("gguf", str(folder), options, device="cpu", loader=loader)


def load_tiny(folder: Path, **options: Any) -> LlamaModel:
    """Load it; skip the test where llama.cpp is missing."""
    pytest.importorskip("llama_cpp", reason=NEEDED)
    from quantchat.worker.loaders import gguf

    model = gguf.load(command(folder, **options), lambda stage: None)
    model.threads = 1  # more would wait for each other on a busy machine
    return model


@dataclass
class Heard:
    """In place of an outbox: the tokens and events of the answers."""

    ids: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    reason: str = ""
    prompt: list[int] = field(default_factory=list)

    def send(self, event: Event) -> None:
        """Take an event."""
        self.events.append(event)

    def begin(self, turn: int, prompt: list[int] | tuple[()] = (), stop: object = ()) -> None:
        """Begin an answer."""
        del turn, stop
        self.ids, self.times, self.prompt = [], [], list(prompt)

    def token(self, token: int, time_ns: int) -> None:
        """Take a token."""
        self.ids.append(token)
        self.times.append(time_ns)

    def end(self, turn: int, reason: str, finished_ns: int) -> None:
        """Take the reason of the end."""
        del turn, finished_ns
        self.reason = reason


def ask(
    decoder: LlamaDecoder,
    messages: list[Message] | None = None,
    sampling: Sampling | None = None,
    tokens: int = 16,
    **more: Any,
) -> Heard:
    """Return what `decoder` answers. `stopped` is asked whether to stop, given what was heard."""
    found = Heard()
    outbox: Any = found
    stopped: Callable[[Heard], bool] = more.pop("stopped", lambda heard: False)
    request = Generate(1, messages or CHAT, sampling or Sampling(), tokens, **more)
    decoder.answer(request, 0, outbox, lambda turn: stopped(found))
    return found
