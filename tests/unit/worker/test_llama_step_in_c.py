"""The CPU's decode step in C: it computes what torch computes, and torch's step replaces it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from fakes.c_compiler import HAS_C_COMPILER
from fakes.tiny_llama import SIZES, loaded, tiny_llama
from quantchat.worker.decode.cpu import c_library, llama_step_in_c
from quantchat.worker.decode.cpu.llama_step import LlamaStep, llama_step
from quantchat.worker.decode.modes import choose
from quantchat.worker.decode.steps import Interrupted
from quantchat.worker.failures import Refused

PROMPT = torch.arange(1, 21)[None]
FULL = "eager, fused Llama steps in C"
WITHOUT = "eager, fused Llama steps"

needs_compiler = pytest.mark.skipif(not HAS_C_COMPILER, reason="there is no C compiler here")


def qwen() -> Any:
    """A model whose query, key and value have a bias."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES)).eval()
    for block in model.model.layers:
        for layer in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
            torch.nn.init.normal_(layer.bias)
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "grouped heads": tiny_llama,
    "as many key heads as query heads": lambda: tiny_llama(num_key_value_heads=4),
    "one key head": lambda: tiny_llama(num_key_value_heads=1),
    "biases": qwen,
    "heads of 64": lambda: tiny_llama(hidden_size=256, num_key_value_heads=1),
    "heads of 128": lambda: tiny_llama(hidden_size=512),
    "an odd width": lambda: tiny_llama(hidden_size=76, head_dim=18, intermediate_size=99),
}


def both(model: Any) -> tuple[LlamaStep, LlamaStep]:
    """The steps of torch and of C through the same bfloat16 weights."""
    in_c = llama_step_in_c.llama_step_in_c(model.to(torch.bfloat16))
    in_torch = llama_step(model)
    assert in_c is not None and in_torch is not None
    assert (in_c.name, in_torch.name) == (FULL, WITHOUT)
    return in_torch, in_c


def assert_near(one: Any, other: Any) -> None:
    """Check that logits differ by a few roundings to bfloat16 only."""
    assert torch.isfinite(one).all()
    assert (one.float() - other.float()).abs().max() <= 0.03 * one.float().abs().max()


@needs_compiler
@pytest.mark.parametrize("attention", ["C", "torch"])
@pytest.mark.parametrize("name", list(MODELS))
def test_it_computes_what_torch_computes(
    name: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if attention == "torch":
        monkeypatch.setattr(llama_step_in_c, "_FEW_THREADS", 0)
        monkeypatch.setattr(llama_step_in_c, "_SHORT", 0)
    in_torch, in_c = both(MODELS[name]())
    assert_near(in_c.run(PROMPT), in_torch.run(PROMPT))
    for token in range(30, 60):
        one = torch.tensor([[token]])
        assert_near(in_c.run(one), in_torch.run(one))
    for step in (in_torch, in_c):
        step.cut(15)
    one = torch.tensor([[7]])
    assert_near(in_c.run(one), in_torch.run(one))


@needs_compiler
def test_single_tokens_from_an_empty_cache_and_beyond_its_first_size() -> None:
    in_torch, in_c = both(tiny_llama(num_hidden_layers=1))
    for token in range(300):
        one = torch.tensor([[token % 97]])
        assert_near(in_c.run(one), in_torch.run(one))
    assert in_c.kv_bytes() == in_torch.kv_bytes()
    in_c.forget()
    assert in_c.kv_bytes() == 0
    in_torch.forget()
    assert_near(in_c.run(one), in_torch.run(one))


@needs_compiler
def test_a_stop_leaves_the_cache_as_it_was() -> None:
    in_torch, in_c = both(tiny_llama())
    in_c.run(PROMPT)
    in_torch.run(PROMPT)
    one = torch.tensor([[9]])
    answers = iter([False, True])
    with pytest.raises(Interrupted) as stopped:
        in_c.run(one, lambda: next(answers))
    assert stopped.value.cache_intact
    assert_near(in_c.run(one), in_torch.run(one))


def test_only_bfloat16_is_computed_in_c() -> None:
    assert llama_step_in_c.llama_step_in_c(tiny_llama()) is None
    chosen = choose(loaded(tiny_llama()), "auto", lambda stage: None)
    assert (chosen.name, chosen.note) == (WITHOUT, "")


def compiler_that(ends: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name as the C compiler a script of one command, for a cache in which nothing is compiled."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "compiled"))
    script = folder / "some cc"
    script.write_text(f"#!/bin/sh\n{ends}\n")
    script.chmod(0o755)
    monkeypatch.setenv("CC", f"'{script}'")


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        ("echo 'fatal error: math.h: No such file' >&2; echo more >&2; exit 3", "math.h"),
        ('while [ "$1" ]; do [ "$1" = -o ] && touch "$2"; shift; done', "file too short"),
    ],
    ids=["it fails", "its result cannot be loaded"],
)
def test_a_compiler_that_does_not_work_leaves_the_step_to_torch(
    ends: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler_that(ends, tmp_path, monkeypatch)
    chosen = choose(loaded(tiny_llama().to(torch.bfloat16)), "auto", lambda stage: None)
    assert chosen.name == WITHOUT
    assert chosen.note.startswith("not fused Llama steps in C: ") and reason in chosen.note
    assert "\n" not in chosen.note


def test_without_a_compiler_torch_computes_and_the_note_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    chosen = choose(loaded(tiny_llama().to(torch.bfloat16)), "auto", lambda stage: None)
    assert chosen.name == WITHOUT
    assert chosen.note == ("not fused Llama steps in C: no C compiler (cc, gcc or clang) was found")


@needs_compiler
def test_it_is_compiled_once_for_each_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    c_library.compiled(llama_step_in_c._SOURCE)
    monkeypatch.setenv("CC", "false")
    c_library.compiled(llama_step_in_c._SOURCE)
    monkeypatch.setattr(c_library, "_processor", lambda: "one without AVX2")
    with pytest.raises(Refused) as caught:
        c_library.compiled(llama_step_in_c._SOURCE)
    assert caught.value.failure.reason == "false failed with 1: no message"
    (folder,) = tmp_path.iterdir()
    assert [one.suffix for one in folder.iterdir()] == [".so"]


@needs_compiler
def test_small_numbers_stay_as_they_are_in_the_rest_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library linked with -ffast-math would turn denormal numbers into zeros everywhere."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    c_library.compiled(llama_step_in_c._SOURCE)
    assert 5e-324 * 1.0 > 0.0
