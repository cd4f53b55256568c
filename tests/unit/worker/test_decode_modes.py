"""The choice of the decode loop; a loop with different results is not used."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fakes.tiny_llama import loaded, tiny_llama
from quantchat.worker.decode.check import STEPS, Check
from quantchat.worker.decode.cpu.llama_step import LlamaStep, llama_step
from quantchat.worker.decode.modes import choose
from quantchat.worker.decode.steps import compiled, graph
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.failures import Refused, describe


def nothing(_stage: str) -> None:
    pass


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("auto", "eager, fused Llama steps"),
        ("eager", "eager, fused Llama steps"),
        ("generate", "generate"),
    ],
)
def test_what_is_taken_is_named(wish: str, name: str) -> None:
    chosen = choose(loaded(), wish, nothing)
    assert (chosen.name, chosen.note) == (name, "")


def test_a_model_of_another_family_calls_its_kernels_directly() -> None:
    chosen = choose(loaded(tiny_llama(hidden_act="gelu")), "auto", nothing)
    assert chosen.name == "eager, direct kernel calls"


def test_a_fused_step_that_is_wrong_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlamaStep, "_normed", lambda self, x, weight: x * weight)
    assert choose(loaded(), "auto", nothing).name == "eager, direct kernel calls"


def test_each_way_to_be_wrong_is_seen() -> None:
    model = tiny_llama()
    check = Check(loaded(model))
    assert check.fault(EagerStep(model)) == ""

    class Off(EagerStep):
        def run(self, tokens: Any, stopped: Any = None) -> Any:
            return super().run(tokens, stopped) * 1.01

    class Lost(EagerStep):
        def run(self, tokens: Any, stopped: Any = None) -> Any:
            return super().run(tokens, stopped) * float("nan")

    class Stuck(EagerStep):
        def cut(self, tokens: int) -> bool:
            return True

    class LateWrong(EagerStep):
        def run(self, tokens: Any, stopped: Any = None) -> Any:
            logits = super().run(tokens, stopped)
            self.count = getattr(self, "count", 0) + 1
            return logits.roll(1, -1) if self.count == len(check._tokens) else logits

    for wrong in (Off, Lost, Stuck, LateWrong):
        assert "logits are off by" in check.fault(wrong(model)), wrong.__name__
    rounded = llama_step(model)
    assert rounded is not None
    assert check.fault(rounded) == ""


def test_with_slow_kernels_fewer_tokens_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantchat.worker.decode.check._SLOW_S", 0)
    one = loaded()
    check = Check(one)
    assert 0 < len(check._tokens) < STEPS
    step = llama_step(one.model)
    assert step is not None
    assert check.fault(step) == ""


@pytest.mark.parametrize("wish", ["graph", "warp"])
def test_what_cannot_be_had_is_refused(wish: str) -> None:
    with pytest.raises(Refused) as caught:
        choose(loaded(), wish, nothing)
    assert caught.value.failure.kind == "unsupported"
    assert wish in caught.value.failure.reason


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "missing_compiler", lambda device: "no C++ compiler")
    with pytest.raises(Refused, match='decode = "compile" is not possible: no C\\+\\+ compiler'):
        choose(loaded(), "compile", nothing)


def test_a_compiled_step_that_is_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(EagerStep):
        def run(self, tokens: Any, stopped: Any = None) -> Any:
            return -super().run(tokens, stopped)

    monkeypatch.setattr(compiled, "missing_compiler", lambda device: "")
    monkeypatch.setattr(compiled, "CompiledStep", lambda model: Wrong(model, "compile"))
    told: list[str] = []
    with pytest.raises(Refused, match='"compile" gives different results here'):
        choose(loaded(), "compile", told.append)
    assert told == ["compiling the decode step"]


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (
            RuntimeError("CUDA error: operation not permitted\nCompile with TORCH_USE_CUDA_DSA"),
            "unsupported",
            'decode = "compile" is not possible here: RuntimeError: CUDA error: operation not '
            "permitted Compile with TORCH_USE_CUDA_DSA",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory", "out of memory"),
    ],
)
def test_a_step_that_breaks_is_no_damaged_model(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str, reason: str
) -> None:
    class Breaking(EagerStep):
        def run(self, tokens: Any, stopped: Any = None) -> Any:
            raise error

    monkeypatch.setattr(compiled, "missing_compiler", lambda device: "")
    monkeypatch.setattr(compiled, "CompiledStep", lambda model: Breaking(model, "compile"))
    with pytest.raises((Refused, torch.OutOfMemoryError)) as caught:
        choose(loaded(), "compile", nothing)
    failure = describe(caught.value, loading="the model")
    assert (failure.kind, failure.reason) == (kind, reason)


def test_a_graph_whose_norms_round_too_far_is_captured_of_the_model_s_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Captured(EagerStep):
        off = 0.0

        def __init__(self, model: Any, norms: Any = ()) -> None:
            super().__init__(model, "graph, fused norms" if norms else "graph")

        def run(self, tokens: Any, stopped: Any = None) -> Any:
            return super().run(tokens, stopped) * (1.0 + ("norms" in self.name) * self.off)

    monkeypatch.setattr(graph, "GraphStep", Captured)
    assert choose(loaded(), "graph", nothing).name == "graph, fused norms"
    Captured.off = 1.0
    assert choose(loaded(), "graph", nothing).name == "graph"


def test_auto_falls_back_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, where the graph cannot be captured; the model itself stays here."""
    on_gpu = loaded()
    on_gpu.device = "cuda:0"
    chosen = choose(on_gpu, "auto", nothing)
    assert chosen.name == "eager, fused Llama steps"
    assert chosen.note.startswith('not graph: decode = "graph" needs a CUDA device')
