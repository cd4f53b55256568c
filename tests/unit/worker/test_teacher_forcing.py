"""Teacher forcing gives the model's own probabilities and leaves the KV cache unchanged."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.tiny_llama import VOCABULARY, tiny_llama
from quantchat.wire.messages import END, LoadModel, ScoreTokens, TokenScores
from quantchat.worker.decode import teacher_forcing as module
from quantchat.worker.decode.loop_decoder import MIN_LOGPROB
from quantchat.worker.decode.teacher_forcing import score_tokens
from quantchat.worker.failures import Refused

MODEL = tiny_llama()
ENDS = frozenset({3, 5})
ids = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=90)


def loaded(**more: Any) -> Any:
    return SimpleNamespace(
        **{
            "command": LoadModel("transformers", "a folder", {}, device="cpu"),
            "model": MODEL,
            "input_device": torch.device("cpu"),
            "context_length": 1024,
            "end_tokens": ENDS,
            "tokenizer_backend": SimpleNamespace(decode=lambda ids, **_: f"<{ids[0]}>"),
            **more,
        }
    )


def forced(prompt: list[int], request: ScoreTokens, **more: Any) -> TokenScores:
    return score_tokens(loaded(**more), prompt, request, lambda: False)


def expected(prompt: list[int], said: list[int]) -> Any:
    """Log-probabilities of every token after each of `said`'s predecessors, in one pass."""
    with torch.inference_mode():
        logits = MODEL(input_ids=torch.tensor([[*prompt, *said[:-1]]])).logits[0]
    return torch.log_softmax(logits.float(), -1)[len(prompt) - 1 :]


@given(ids, ids, st.data())
@settings(max_examples=25, deadline=None)
def test_it_is_what_one_forward_pass_says(
    prompt: list[int], said: list[int], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(said) - 1))
    batch = data.draw(st.sampled_from([1, 3]))
    request = ScoreTokens(7, [], said, first=first, also=[1, END], batch=batch)
    told = forced(prompt, request)
    rows = expected(prompt, said)[first:]
    tokens = torch.tensor(said[first:])
    assert told.number == 7
    assert told.logprobs == pytest.approx(
        rows[torch.arange(len(tokens)), tokens].tolist(), abs=1e-4
    )
    assert told.pieces == [f"<{token}>" for token in said[first:]]
    # One computation's logits tie where the other's differ by rounding: not the rank, but that none
    # was clearly likelier, is what both agree on.
    for rank, row, token in zip(told.ranks, rows, said[first:], strict=True):
        assert (row > row[token] + 1e-4).sum() <= rank <= (row > row[token] - 1e-4).sum()
    ends = sum(math.exp(rows[-1, end]) for end in ENDS)
    assert told.also == pytest.approx([float(rows[-1, 1]), math.log(ends)], abs=1e-4)


def test_the_end_of_an_answer_is_all_end_tokens_together() -> None:
    told = forced([1, 2], ScoreTokens(1, [], [9, END]))
    last = expected([1, 2], [9, 0])[-1]
    assert told.logprobs[1] == pytest.approx(math.log(sum(math.exp(last[e]) for e in ENDS)), 1e-4)
    assert told.pieces == ["<9>", ""]


def test_cross_entropy_is_transformers_own() -> None:
    text = torch.tensor([[n * n % VOCABULARY for n in range(200)]])
    told = forced(text[0, :1].tolist(), ScoreTokens(1, [], text[0, 1:].tolist()))
    with torch.inference_mode():
        loss = float(MODEL(input_ids=text, labels=text).loss)
    assert -sum(told.logprobs) / len(told.logprobs) == pytest.approx(loss, abs=1e-4)


def test_it_gives_way_between_two_chunks() -> None:
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Refused, match="cancelled"):
        score_tokens(loaded(), [1] * 300, ScoreTokens(1, [], [2]), cancelled)
    assert len(asked) == 3


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(Refused, match="does not fit"):
        forced([1] * 8, ScoreTokens(1, [], [2, 3]), context_length=8)


def test_an_impossible_token_has_a_finite_logarithm(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = module._Scores(loaded(), ScoreTokens(1, [], [0, 1]))
    rows.take(torch.tensor([[0.0, -math.inf], [0.0, -math.inf]]))
    assert rows.scores().logprobs == [0.0, MIN_LOGPROB]
    with pytest.raises(Refused, match="NaN"):
        module._Scores(loaded(), ScoreTokens(1, [], [0])).take(torch.tensor([[math.nan, 0.0]]))
