"""Sampling settings sent to a server, and settings refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from quantchat.wire.messages import Generate, Message, Sampling
from quantchat.worker.failures import Refused
from quantchat.worker.servers.request import DIALECTS, request_arguments

POOR = DIALECTS[-1]
"""A server that knows none of the extensions."""


def extra(sampling: Sampling, *, ollama: bool = False) -> dict[str, Any]:
    request = Generate(1, [Message("user", "Hi")], sampling, max_new_tokens=8)
    body = request_arguments(
        request, model="m", chat=True, dialect=POOR, template={}, ollama=ollama
    )["extra_body"]
    return body or {}


def test_what_is_set_is_sent_to_each_server() -> None:
    sampling = Sampling(1.0, min_p=0.1, presence_penalty=0.5, frequency_penalty=-0.5)
    assert extra(sampling) == {"min_p": 0.1, "presence_penalty": 0.5, "frequency_penalty": -0.5}
    assert extra(Sampling(1.0)) == {}
    assert extra(Sampling(0.0, min_p=0.1)) == {}, "greedy takes the likeliest token anyway"


def test_what_ollama_would_ignore_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="min_p"):
        extra(Sampling(1.0, min_p=0.1), ollama=True)
    assert extra(Sampling(1.0, presence_penalty=0.5), ollama=True) == {"presence_penalty": 0.5}
