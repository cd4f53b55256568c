"""The worker's client of a server, in this process: what it is asked and what it sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fakes.raw_server import Asked, RawServer
from quantchat.wire.messages import (
    Finished,
    Generate,
    LoadModel,
    Message,
    Sampling,
    Tokens,
)
from quantchat.wire.protocol import Event
from quantchat.worker.failures import Refused
from quantchat.worker.servers.remote import RemoteDecoder


class Outbox:
    def __init__(self) -> None:
        self.sent: list[Event] = []

    def send(self, event: Event) -> None:
        self.sent.append(event)

    @property
    def finished(self) -> Finished:
        end = self.sent[-1]
        assert isinstance(end, Finished)
        return end

    @property
    def tokens(self) -> list[Tokens]:
        return [one for one in self.sent if isinstance(one, Tokens)]


def decoder(server: RawServer, query: str = "", **more: Any) -> RemoteDecoder:
    options = {"api": "chat", "base_url": server.url + query, "timeout_s": 10.0, **more}
    return RemoteDecoder(LoadModel("openai", "tiny", options))


def ask(made: RemoteDecoder, sampling: Sampling | None = None, *, most: int = 32) -> Outbox:
    outbox = Outbox()
    request = Generate(1, [Message("user", "Capital?")], sampling or Sampling(), most)
    made.answer(request, 0, outbox, lambda _: False)  # type: ignore[arg-type]
    return outbox


def is_warm_up(asked: Asked) -> bool:
    return 1 in (asked.body.get("max_tokens"), asked.body.get("max_completion_tokens"))


def after_warm_up(answers: Callable[[Asked], None]) -> Callable[[Asked], None]:
    """`answers`, but a good answer to what is asked while loading."""
    return lambda asked: asked.answer() if is_warm_up(asked) else answers(asked)


def refused(work: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        work()
    failure = caught.value.failure
    assert "\n" not in failure.reason
    return failure.kind, failure.reason
