"""Each decode step computes what the model's own modules compute, on small random models."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from fakes.tiny_llama import VOCABULARY, tiny_llama
from quantchat.common.memory_rules import bucket
from quantchat.worker.decode.caches import cache_parameter
from quantchat.worker.decode.cpu import kernels
from quantchat.worker.decode.cpu.llama_step import llama_step
from quantchat.worker.decode.growing_cache import growing_cache
from quantchat.worker.decode.steps import Step
from quantchat.worker.decode.steps.compiled import CompiledStep, missing_compiler
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.decode.steps.static import StaticStep
from quantchat.worker.failures import Refused

TOKENS = [5, 60, 7, 33, 2, 90, 41, 8, 15, 77]


def fused(model: Any) -> Step:
    step = llama_step(model)
    assert step is not None
    return step


def direct(model: Any) -> Step:
    assert kernels.call_directly(model) == 3 * 7 + 1
    return EagerStep(model)


MAKERS: dict[str, Callable[[Any], Step]] = {
    "eager": EagerStep,
    "static": lambda model: StaticStep(model, "static"),
    "fused": fused,
    "direct": direct,
}

each_step = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def whole(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits after each of `ids`, computed at once without a cache: (tokens, vocabulary)."""
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits.clone()


def run(step: Step, ids: list[int]) -> torch.Tensor:
    return step.run(torch.tensor([ids]))[0].clone()


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@each_step
def test_a_prompt_in_chunks_and_then_token_by_token(make: Callable[[Any], Step]) -> None:
    model = tiny_llama()
    expected = whole(model, TOKENS)
    step = make(model)
    close(run(step, TOKENS[:4]), expected[3])
    close(run(step, TOKENS[4:6]), expected[5])
    for place in range(6, len(TOKENS)):
        close(run(step, [TOKENS[place]]), expected[place])


@each_step
def test_what_is_taken_back_leaves_no_trace(make: Callable[[Any], Step]) -> None:
    model = tiny_llama()
    expected = whole(model, [*TOKENS[:5], 11, 12])
    step = make(model)
    run(step, TOKENS[:4])
    for token in TOKENS[4:]:
        run(step, [token])
    assert step.cut(5)
    close(run(step, [11]), expected[5])
    close(run(step, [12]), expected[6])


@each_step
def test_the_cache_grows_past_its_first_length(make: Callable[[Any], Step]) -> None:
    model = tiny_llama()
    ids = [(7 * n) % VOCABULARY for n in range(260)]
    expected = whole(model, ids)
    step = make(model)
    run(step, ids[:250])
    before = step.kv_bytes()
    for place in range(250, 260):
        close(run(step, [ids[place]]), expected[place])
    assert step.kv_bytes() == 2 * before  # 512 tokens in place of 256
    step.forget()
    assert step.kv_bytes() == 0
    close(run(step, ids[:3]), expected[2])


@each_step
def test_a_cache_of_one_token(make: Callable[[Any], Step]) -> None:
    model = tiny_llama()
    expected = whole(model, TOKENS[:2])
    step = make(model)
    close(run(step, TOKENS[:1]), expected[0])
    close(run(step, TOKENS[1:2]), expected[1])


@pytest.mark.parametrize(
    "more",
    [
        {"attention_bias": True, "mlp_bias": True},
        {"num_key_value_heads": 4},
        {"tie_word_embeddings": True},
        {"head_dim": 32},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_the_fused_step_knows_the_family(more: dict[str, Any]) -> None:
    model = tiny_llama(**more)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # made as zeros, which would hide one that is left out
            torch.nn.init.normal_(parameter)
    expected = whole(model, TOKENS)
    step = fused(model)
    close(run(step, TOKENS[:6]), expected[5])
    close(run(step, TOKENS[6:7]), expected[6])


def test_the_fused_step_refuses_what_it_does_not_compute() -> None:
    assert llama_step(tiny_llama(hidden_act="gelu")) is None
    assert llama_step(tiny_llama(rope_parameters={"rope_type": "dynamic", "factor": 2.0})) is None
    sizes = {
        "vocab_size": 9,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    sliding = MistralForCausalLM(MistralConfig(**sizes, sliding_window=8))
    assert llama_step(sliding.eval()) is None


def test_direct_calls_can_be_undone() -> None:
    model = tiny_llama()
    expected = whole(model, TOKENS)
    kernels.call_directly(model)
    kernels.call_as_before(model)
    assert not any("forward" in vars(layer) for layer in model.modules())
    assert torch.equal(whole(model, TOKENS), expected)


def test_fusing_copies_no_weight() -> None:
    model = tiny_llama()
    before = sum(p.numel() for p in model.parameters())
    attention = model.model.layers[0].self_attn
    expected = whole(model, TOKENS)
    fused(model)
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage() for p in model.parameters()}
    assert sum(s.nbytes() for s in storages.values()) == 4 * before
    assert attention.q_proj.weight.untyped_storage().data_ptr() == (
        attention.v_proj.weight.untyped_storage().data_ptr()
    )
    close(whole(model, TOKENS), expected)  # the modules still see their own part


@pytest.mark.filterwarnings("error:.*is deprecated:FutureWarning")
@each_step
def test_the_cache_is_given_by_the_name_that_will_stay(make: Callable[[Any], Step]) -> None:
    """transformers 5.24 renamed the argument, and will one day pass over the old name."""
    run(make(tiny_llama()), TOKENS)


def test_a_model_with_code_of_its_own_is_given_the_cache_by_the_old_name() -> None:
    def forward(input_ids: Any, past_key_values: Any = None) -> None: ...

    assert cache_parameter(SimpleNamespace(forward=forward)) == "past_key_values"


def test_sliding_windows_are_neither_grown_nor_fixed() -> None:
    sizes = {
        "vocab_size": 9,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    config = MistralConfig(**sizes, sliding_window=8)
    model = MistralForCausalLM(config).eval()
    run(step := EagerStep(model), [1, 2, 3])
    assert not step.cut(1)
    with pytest.raises(Refused, match="sliding windows"):
        StaticStep(model, "compile")
    assert growing_cache(config).layers


def test_triton_wants_a_c_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    cuda = torch.device("cuda:0")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_compiler(cuda) == "no C compiler (gcc or clang) was found"
    (tmp_path / "clang").write_text("")
    (tmp_path / "clang").chmod(0o700)
    monkeypatch.setattr(sysconfig, "get_path", lambda name, scheme: str(tmp_path))
    assert missing_compiler(cuda) == "the headers of Python (python3-dev) are not installed"
    (tmp_path / "Python.h").write_text("")
    assert missing_compiler(cuda) == ""
    monkeypatch.setenv("CC", "other-cc")
    assert missing_compiler(cuda) == "no C compiler (other-cc) was found"


@pytest.mark.skipif(
    bool(missing_compiler(torch.device("cpu"))), reason="there is no C++ compiler here"
)
@pytest.mark.usefixtures("compiled_here")
def test_a_compiled_step() -> None:
    model = tiny_llama(num_hidden_layers=1)
    ids = [(7 * n) % VOCABULARY for n in range(258)]
    expected = whole(model, ids)
    step = CompiledStep(model)
    run(step, ids[:253])
    for place in range(253, 258):  # over the end of the first bucket
        close(run(step, [ids[place]]), expected[place])
    assert step.cut(3)
    close(run(step, [ids[255]]), expected[255])


@pytest.mark.parametrize(
    ("tokens", "allocated"), [(0, 0), (1, 256), (256, 256), (257, 512), (2048, 2048), (2049, 3072)]
)
def test_lengths_are_allocated_in_steps(tokens: int, allocated: int) -> None:
    assert bucket(tokens) == allocated
