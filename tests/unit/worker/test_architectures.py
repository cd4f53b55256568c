"""Models of other architectures than Llama: decoded exactly, or refused by name when loaded.

`benchmarks/architectures.py` does the same for a hundred architectures.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fakes.decoder_probe import REFERENCE, ROUNDING, Probe, tiny_loaded
from fakes.tiny_architectures import ARCHITECTURES, tiny_model
from quantchat.worker.decode.cache_rules import CacheRules, longrope_limit
from quantchat.worker.decode.check import Check
from quantchat.worker.failures import Refused

LONG = 560
"""Tokens of the long prompt: more than a piece of 512, and than a sliding window."""


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("phi3_longrope", "auto"),
        ("phi3_longrope", "generate"),
        ("jamba", "auto"),
        ("recurrent_gemma", "generate"),
        ("bamba", "auto"),
        ("falcon_h1", "auto"),
        ("mamba2", "auto"),
        ("mamba2", "generate"),
        ("gemma3_text", "auto"),
        ("qwen3_moe", "auto"),
        ("gpt2", "auto"),
        ("qwen3_vl", "auto"),
        ("mistral3", "generate"),
        ("llava", "auto"),
        ("voxtral", "generate"),
    ],
)
def test_each_turn_says_what_an_uncached_pass_says(name: str, mode: str) -> None:
    probe = Probe(tiny_model(name), mode, LONG)
    errors = {check: run() for check, run in probe.checks.items()}
    assert {check: error for check, error in errors.items() if not error <= ROUNDING} == {}


@pytest.mark.parametrize("mode", ["auto", "generate"])
@pytest.mark.parametrize("name", ["rwkv", "minimax", "xlstm"])
def test_what_cannot_be_decoded_is_refused_by_name(name: str, mode: str) -> None:
    model = tiny_model(name)
    with pytest.raises(Refused) as caught:
        Probe(model, mode)
    failure = caught.value.failure
    assert failure.kind == "unsupported"
    assert failure.reason.startswith(f"{type(model).__name__} cannot be decoded with its cache")


@pytest.mark.parametrize("name", ["jamba", "recurrent_gemma", "mamba"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_that_is_lost_between_pieces_is_found_in_any_dtype(name: str, dtype: Any) -> None:
    """In bfloat16 the error is smaller than rounding."""
    rules = Check(tiny_loaded(tiny_model(name).to(dtype))).rules
    assert not rules.appendable
    assert "computed again" in rules.note
    assert not rules.problem


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "qwen3_5_text", "falcon_h1", "gemma2"])
def test_rounding_is_no_fault_of_the_cache(name: str) -> None:
    assert Check(tiny_loaded(tiny_model(name).to(torch.bfloat16))).rules == CacheRules()


@pytest.mark.parametrize("mode", ["auto", "generate"])
def test_a_chat_that_outgrows_the_original_context_takes_the_long_factors(mode: str) -> None:
    """LongRoPE: in the middle of an answer, and back where it is edited below that length."""
    rope = ARCHITECTURES["phi3_longrope"].settings["rope_parameters"]
    original = {"original_max_position_embeddings": 64}
    model = tiny_model("phi3_longrope", **original, rope_parameters={**rope, **original})
    assert longrope_limit(model.config) == 64
    probe = Probe(model, mode, LONG)
    begin = probe.some(58)
    answered = probe.ask(begin, 12)
    for prompt, said in (
        (begin, answered),
        (again := [*begin, *answered, *probe.some(5)], probe.ask(again, 3)),
        (edited := [*begin[:40], *probe.some(5)], probe.ask(edited, 3)),
    ):
        for count, token in enumerate(said):
            right = probe.uncached([*prompt, *said[:count]], 1)[0]
            assert float(right.max() - right[token]) <= ROUNDING, (len(prompt), count)


def test_what_the_rules_allow() -> None:
    ordinary, whole, rope = (
        CacheRules(),
        CacheRules(appendable=False),
        CacheRules(longrope_limit=100),
    )
    assert ordinary.can_append(0, 2000)
    assert ordinary.can_reuse(50, 50, 60)
    assert not ordinary.can_reuse(50, 0, 60)
    assert not whole.can_append(0, 2000)
    assert not whole.can_reuse(50, 50, 51)
    assert rope.can_append(0, 100)
    assert not rope.can_append(0, 101)  # in one piece, all with the long factors
    assert not rope.can_reuse(90, 90, 101)
    assert rope.can_reuse(150, 101, 160)
    assert not rope.can_reuse(150, 90, 95)  # what is cached has the long factors
    assert rope.invalidated_at(100)
    assert not ordinary.invalidated_at(0)


def test_the_reference_is_exact_here() -> None:
    probe = Probe(tiny_model("llama"), "auto", LONG)
    assert probe.checks[REFERENCE]() <= ROUNDING
