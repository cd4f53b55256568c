"""Sampling settings sent to a server, and settings refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from quantchat.wire.messages import Generate, Message, Sampling
from quantchat.worker.failures import Refused
from quantchat.worker.servers.request import DIALECTS, request_arguments

POOR = DIALECTS[-1]
"""A server that knows none of the extensions."""


def extra(
    sampling: Sampling, *, ollama: bool = False, owner: str = "", ignore_eos: bool = False
) -> dict[str, Any]:
    request = Generate(
        1, [Message("user", "Hi")], sampling, max_new_tokens=8, ignore_eos=ignore_eos
    )
    body = request_arguments(
        request, model="m", chat=True, dialect=POOR, template={}, ollama=ollama, owner=owner
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
    with pytest.raises(Refused, match="Ollama does not support logit_bias"):
        extra(Sampling(logit_bias={"7": 1.0}), ollama=True)


def test_what_ends_an_answer_is_sent_but_for_an_answer_of_a_fixed_length() -> None:
    sampling = Sampling(stop=["User:"], logit_bias={"7": -100.0})
    assert extra(sampling) == {"stop": ["User:"], "logit_bias": {"7": -100.0}}
    assert extra(sampling, ollama=False, ignore_eos=True) == {
        "logit_bias": {"7": -100.0},
        "ignore_eos": True,
    }


def test_sglang_is_asked_for_its_drafts() -> None:
    assert extra(Sampling(), owner="sglang") == {"return_spec_tokens_details": True}
    assert extra(Sampling(), owner="vllm") == {}


def test_a_limit_of_thoughts_is_sent_where_a_server_knows_one_and_else_refused_by_name() -> None:
    sampling = Sampling(max_thinking_tokens=64)
    assert extra(sampling, owner="vllm") == {"thinking_token_budget": 64}
    assert extra(sampling, owner="llamacpp") == {"thinking_budget_tokens": 64}
    for owner in ("", "sglang", "library"):
        with pytest.raises(Refused, match="max_thinking_tokens"):
            extra(sampling, owner=owner)
