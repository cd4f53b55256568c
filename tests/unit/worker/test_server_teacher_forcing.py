"""A server scores the tokens of its own answer, if it tells tokens and log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fakes.raw_server import Asked, raw_server
from fakes.served_decoder import decoder
from quantchat.wire.messages import Message, ScoreTokens, TokenScores
from quantchat.worker.failures import Refused
from quantchat.worker.servers.tokenizing import answer_tokens

LIKELIEST = "It is Paris."
"""The answer that the fake model finds likeliest, character by character. A character is a token,
and its code point is the id."""
BEGIN, OPEN, CLOSE = "\x01", "<", ">"
OWN, OTHER = -0.5, -1.0
"""Log-probability of the likeliest token of a position, and of each other one."""


def formatted(messages: list[Mapping[str, str]]) -> str:
    return BEGIN + "".join(OPEN + one["content"] + CLOSE for one in messages)


def ids(text: str) -> list[int]:
    return [ord(one) for one in text]


def likeliest(prompt: list[int]) -> int:
    """The likeliest next token after a prompt that has the answer so far after the last `>`."""
    said = "".join(map(chr, prompt)).rpartition(CLOSE)[2]
    return ord(LIKELIEST[len(said) : len(said) + 1] or "\x02")


class Fake:
    """Answers as a server of one kind, and notes the requests for log-probabilities."""

    def __init__(self) -> None:
        self.scored: list[dict[str, Any]] = []

    def vllm(self, asked: Asked) -> None:
        body = asked.body
        if asked.path == "/tokenize" and "messages" in body:
            assert body["add_generation_prompt"]
            asked.json({"tokens": ids(formatted(body["messages"]))})
        elif asked.path == "/tokenize" and "prompt" in body:
            begin = BEGIN if body["add_special_tokens"] else ""
            asked.json({"tokens": ids(begin + body["prompt"])})
        elif asked.path == "/detokenize":
            asked.json({"prompt": "".join(map(chr, body["tokens"]))})
        elif asked.path == "/v1/completions" and "prompt_logprobs" in body:
            self.scored.append(body)
            told: list[Any] = [None]
            for place in range(1, len(body["prompt"])):
                best, own = likeliest(body["prompt"][:place]), body["prompt"][place]
                told.append({str(own): {"logprob": OTHER}, str(best): {"logprob": OWN}})
            asked.json({"choices": [{"text": "x", "prompt_logprobs": told}]})
        else:
            asked.json({"error": "no"}, status=404)

    def llama_cpp(self, asked: Asked) -> None:
        body = asked.body
        if asked.path == "/apply-template":
            asked.json({"prompt": formatted(body["messages"])[1:]})
        elif asked.path == "/tokenize":  # it ignores parameters that it does not know
            asked.json({"tokens": ids(BEGIN + body["content"]) if "content" in body else []})
        elif asked.path == "/v1/completions":
            self.scored.append(body)
            best = likeliest(body["prompt"])
            forced = [int(one) for one in body.get("logit_bias", {})]
            chosen = {"id": (forced or [best])[0], "logprob": OTHER}
            if chosen["id"] == best:
                chosen["logprob"] = OWN
            told = {"content": [{**chosen, "top_logprobs": [{"id": best, "logprob": OWN}]}]}
            asked.json(
                {"choices": [{"text": "x", "logprobs": told if body.get("logprobs") else None}]}
            )
        else:
            asked.json({"error": "no"}, status=404)


@pytest.fixture
def fake() -> Fake:
    return Fake()


def scored(
    answers: Callable[[Asked], None], text: str, *, rows: int = 1, **options: Any
) -> TokenScores:
    with raw_server(answers) as server:
        request = ScoreTokens(7, [Message("user", "Capital?")], [], batch=rows, text=text)
        return decoder(server, **options).score_tokens(request, lambda: False)


KINDS = pytest.mark.parametrize("kind", ["vllm", "llama_cpp"])


@KINDS
def test_the_likeliest_answer_has_only_ranks_of_zero(fake: Fake, kind: str) -> None:
    found = scored(getattr(fake, kind), LIKELIEST)
    assert (found.number, found.problem) == (7, "")
    assert found.ranks == [0] * len(LIKELIEST)
    assert found.logprobs == [OWN] * len(LIKELIEST)


@KINDS
def test_another_token_has_a_rank(fake: Fake, kind: str) -> None:
    found = scored(getattr(fake, kind), "It is Rome.")
    assert [place for place, rank in enumerate(found.ranks) if rank] == [6, 7, 8, 9, 10]
    assert found.logprobs[5:7] == [OWN, OTHER]


@KINDS
def test_it_is_read_after_the_prompt_as_the_server_formats_it(fake: Fake, kind: str) -> None:
    scored(getattr(fake, kind), "It")
    assert "".join(map(chr, fake.scored[-1]["prompt"])).startswith(BEGIN + "<Capital?>I")
    assert scored(getattr(fake, kind), "It", api="completion").problem == ""
    assert "".join(map(chr, fake.scored[-1]["prompt"])).startswith(BEGIN + "Capital?I")


def test_two_rows_are_two_requests_at_once(fake: Fake) -> None:
    assert scored(fake.vllm, "It", rows=2).ranks == [0, 0]
    assert [one["prompt"] for one in fake.scored] == [ids(BEGIN + "<Capital?>It")] * 2


def test_a_server_without_tokenize_is_named(fake: Fake) -> None:
    with pytest.raises(Refused, match="the server has no /tokenize"):
        scored(lambda asked: asked.json({"error": "no"}, status=404), "It")


def test_a_server_without_log_probabilities_is_named(fake: Fake) -> None:
    def answer(asked: Asked) -> None:
        if asked.path == "/v1/completions":
            asked.json({"choices": [{"text": "x"}]})
        else:
            fake.vllm(asked)

    with pytest.raises(Refused, match="gives no log-probabilities"):
        scored(answer, "It")


def test_another_command_cancels_it(fake: Fake) -> None:
    with raw_server(fake.llama_cpp) as server:
        request = ScoreTokens(1, [Message("user", "Capital?")], [], text=LIKELIEST)
        with pytest.raises(Refused, match="cancelled by another command"):
            decoder(server).score_tokens(request, lambda: bool(fake.scored))
    assert len(fake.scored) < len(LIKELIEST)


async def test_tokens_that_join_prompt_and_answer_are_refused() -> None:
    def answer(asked: Asked) -> None:
        text = asked.body.get("prompt", "")
        merged = ids(text.replace("a!", "\x09")) if "!" in text else ids(text)
        asked.json({"tokens": merged, "prompt": "".join(map(chr, asked.body.get("tokens", [])))})

    from openai import AsyncOpenAI

    with raw_server(answer) as server:
        client = AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0)
        with pytest.raises(Refused, match="do not begin with those of the prompt"):
            await answer_tokens(client, server.url, "tiny", "banana", "! Yes", {})
