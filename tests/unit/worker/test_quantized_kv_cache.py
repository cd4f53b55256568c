"""A variant's KV cache in fewer bits: answers, scores, bytes and labels are those of that cache."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from fakes.tiny_llama import VOCABULARY, loaded, tiny_llama
from quantchat.common.kv_cache import KV_CACHES
from quantchat.wire.messages import LoadModel, Sampling, ScoreTokens
from quantchat.worker.decode.batch_loop import BatchLoop
from quantchat.worker.decode.caches import variant_cache
from quantchat.worker.decode.check import Check
from quantchat.worker.decode.loop import RunningAnswer
from quantchat.worker.decode.modes import choose
from quantchat.worker.decode.teacher_forcing import score_tokens
from quantchat.worker.failures import Refused
from quantchat.worker.loaders import loader_of
from quantchat.worker.memory import kv_cache_bytes
from quantchat.worker.scoring.logits import CHUNK, Forecast

HEADS, HEAD, LAYERS = 2, 64, 3
PROMPT = [(31 + 7 * n * n) % VOCABULARY for n in range(200)]


def needs_hqq(kind: str) -> Any:
    there = KV_CACHES[kind].library is None or importlib.util.find_spec("hqq")
    return pytest.param(kind, marks=pytest.mark.skipif(not there, reason="hqq is not installed"))


each_format = pytest.mark.parametrize("kind", [needs_hqq(one) for one in KV_CACHES])


@pytest.fixture(scope="module")
def model() -> Any:
    """With heads of 64 elements, the group that shares a scale."""
    return tiny_llama(hidden_size=HEADS * HEAD, num_attention_heads=HEADS)


class Heard:
    """Takes the tokens of a loop."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def send(self, event: Any) -> None:
        pass

    def token(self, token: int, _time_ns: int) -> None:
        self.ids.append(token)


def answer(loop: Any, prompt: list[int], most: int = 12) -> tuple[list[int], int]:
    """The greedy tokens, and how many tokens of the prompt were in the cache."""
    heard: Any = Heard()
    kept = loop.rewind(prompt)
    loop.answer(prompt, RunningAnswer(1, Sampling(), most, frozenset(), heard, lambda _: False))
    return heard.ids, kept


@each_format
@pytest.mark.parametrize("mode", ["auto", "eager", "generate"])
def test_it_decodes_with_that_cache_and_says_so(model: Any, kind: str, mode: str) -> None:
    chosen = choose(loaded(model, {"kv_cache": kind}), mode, lambda _: None)
    assert chosen.name.endswith(f"KV cache {kind}")
    assert chosen.rules.problem == ""  # the check is of the model, with its usual cache
    first, _ = answer(chosen.loop, PROMPT)
    assert len(first) == 12
    usual = choose(loaded(model), mode, lambda _: None).loop
    answer(usual, PROMPT)
    assert 0 < chosen.loop.kv_bytes() < usual.kv_bytes()
    # A second turn continues; an edit, which cuts the cache, begins anew and gives the same.
    more, kept = answer(chosen.loop, [*PROMPT, *first, 5, 6])
    assert kept >= len(PROMPT) and len(more) == 12
    again, kept = answer(chosen.loop, PROMPT)
    assert (again, kept) == (first, 0)


@each_format
def test_its_bytes_are_those_that_the_plan_computes(model: Any, kind: str) -> None:
    made = variant_cache(loaded(model, {"kv_cache": kind}).command, model.config)
    assert made is not None
    cache, tokens = made(), 96
    with torch.inference_mode():
        model(torch.tensor([PROMPT[:tokens]]), past_key_values=cache, use_cache=True)
    elements = 2 * LAYERS * HEADS * HEAD * tokens
    # The scale of fp8 is one number for a layer.
    assert kv_cache_bytes(cache) == pytest.approx(elements * KV_CACHES[kind].element(4), rel=0.001)


def through(model: Any, kind: str) -> Any:
    """The logits of the prompt read in pieces through that cache."""
    made = variant_cache(loaded(model, {"kv_cache": kind}).command, model.config)
    assert made is not None
    cache = made()
    with torch.inference_mode():
        pieces = [
            model(torch.tensor([PROMPT[n : n + CHUNK]]), past_key_values=cache).logits[0]
            for n in range(0, len(PROMPT), CHUNK)
        ]
    return torch.cat(pieces)


@each_format
def test_a_score_reads_through_that_cache(model: Any, kind: str) -> None:
    found = torch.cat(list(Forecast(loaded(model, {"kv_cache": kind}), PROMPT).logits(PROMPT, 0)))
    exact = torch.cat(list(Forecast(loaded(model), PROMPT).logits(PROMPT, 0)))
    torch.testing.assert_close(found, through(model, kind))
    error = (found - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert float(error[:CHUNK].max()) < 1e-5  # nothing was read from the cache
    assert 1e-4 < float(error[CHUNK:].mean()) < 0.2


@each_format
def test_teacher_forcing_reads_through_that_cache(model: Any, kind: str) -> None:
    asked = ScoreTokens(1, [], [7, 8, 9])
    scored = [
        score_tokens(
            loaded(model, options, end_tokens=frozenset()), PROMPT, asked, lambda: False
        ).logprobs
        for options in ({"kv_cache": kind}, {})
    ]
    assert scored[0] != scored[1]
    assert scored[0] == pytest.approx(scored[1], abs=0.2)


@each_format
def test_a_batch_holds_that_cache(model: Any, kind: str) -> None:
    prompts = [PROMPT[:60], PROMPT[60:120]]
    bytes_ = []
    for options in ({"kv_cache": kind}, {}):
        one = loaded(model, options)
        new_cache = variant_cache(one.command, model.config)
        loop = BatchLoop(model, torch.device("cpu"), Check(one).fault, new_cache)
        bytes_.append(loop.decode(prompts, 4).kv_bytes)
    assert 0 < bytes_[0] < bytes_[1]


def test_a_model_with_sliding_windows_is_refused_in_words() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    from fakes.tiny_llama import SIZES

    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)).eval()
    with pytest.raises(Refused, match='kv_cache = "fp8" is not possible for this model') as refused:
        choose(loaded(model, {"kv_cache": "fp8"}), "auto", lambda _: None)
    assert refused.value.failure.hint == "leave kv_cache out"


def test_the_package_it_needs_is_named_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from quantchat.engines.registry import engines

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    engine = engines()["transformers"]
    spec = engine.variant_table.model_validate(
        {"label": "x", "engine": "transformers", "model": "a/b", "kv_cache": "int4"}
    )
    (library,) = set(engine.needs(spec)) - set(engine.libraries)
    with pytest.raises(Refused, match="needs the package hqq") as refused:
        loader_of(LoadModel("transformers", "a/b", spec.options, needs=[library]))
    assert "quantchat[hqq]" in refused.value.failure.hint
