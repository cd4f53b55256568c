"""A captured decode step: refused where impossible, captured early, freed with its buffers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fakes.tiny_llama import VOCABULARY, tiny_llama
from quantchat.common.memory_rules import bucket, buckets
from quantchat.worker.decode.growing_cache import GrowingLayer
from quantchat.worker.decode.steps import Step
from quantchat.worker.decode.steps.graph import GraphStep
from quantchat.worker.decode.steps.static import StaticStep
from quantchat.worker.failures import Refused

TOKENS = [5, 60, 7, 33, 2, 90, 41, 8, 15, 77]


def whole(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits after each of `ids`, computed at once without a cache: (tokens, vocabulary)."""
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits.clone()


def run(step: Step, ids: list[int]) -> torch.Tensor:
    return step.run(torch.tensor([ids]))[0].clone()


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_graph_wants_a_gpu() -> None:
    with pytest.raises(Refused, match='decode = "graph" needs a CUDA device'):
        GraphStep(tiny_llama())


def test_a_graph_is_not_captured_of_kernels_on_another_stream() -> None:
    class ExllamaV2Linear:
        pass

    model = SimpleNamespace(device=torch.device("cuda:0"), modules=lambda: [ExllamaV2Linear()])
    with pytest.raises(Refused, match="ExLlamaV2 runs on a stream that is not captured"):
        GraphStep(model)


@pytest.mark.parametrize(
    ("first", "last", "lengths"),
    [
        (41, 41, [256]),
        (41, 256, [256]),
        (41, 1040, [256, 512, 768, 1024, 1280]),
        (1900, 2500, [2048, 3072]),
        (256, 257, [256, 512]),
    ],
)
def test_each_length_that_an_answer_may_have(first: int, last: int, lengths: list[int]) -> None:
    assert buckets(first, last) == lengths
    assert lengths == sorted({bucket(tokens) for tokens in range(first, last + 1)})


class FakeGraph:
    """Stands in for `torch.cuda.CUDAGraph`: a replay runs what was captured once more."""

    captured: Any = None
    places: Any = None

    def replay(self) -> None:
        step, window, logits = self.captured
        for layer in step.cache.layers:
            layer.window = window
        logits.copy_(step._forward(self.places))


class OnFakeCuda(GraphStep):
    """A `GraphStep` over a model on the CPU, with a CUDA that only counts."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.streams: list[Any] = []
        self.windows: list[int] = []

        def stream(_device: Any) -> Any:
            self.streams.append(SimpleNamespace(wait_stream=lambda other: None))
            return self.streams[-1]

        @contextlib.contextmanager
        def graph(graph: Any, pool: Any, stream: Any) -> Iterator[None]:
            assert stream is self._stream
            self._under_way = graph
            yield

        current = SimpleNamespace(wait_stream=lambda other: None)
        for name, value in {
            "Stream": stream,
            "current_stream": lambda: current,
            "stream": lambda stream: contextlib.nullcontext(),
            "CUDAGraph": FakeGraph,
            "graph": graph,
            "graph_pool_handle": object,
            "get_sync_debug_mode": lambda: 0,
            "set_sync_debug_mode": lambda mode: None,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(type(model), "device", torch.device("cuda:0"))
        monkeypatch.setattr(torch, "zeros", _on_the_cpu(torch.zeros))
        super().__init__(model)

    def _capture(self, window: int) -> tuple[Any, Any]:
        self.windows.append(window)
        graph, logits = super()._capture(window)
        graph.captured = self, window, logits
        return graph, logits


def _on_the_cpu(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *sizes, **more: make(*sizes, **{**more, "device": "cpu"})


def test_graphs_are_captured_before_an_answer_on_one_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_llama()
    ids = [(7 * n) % VOCABULARY for n in range(540)]
    expected = whole(model, ids)
    step = OnFakeCuda(model, monkeypatch)
    step.prepare(41, 540)
    assert step.windows == []  # no buffers yet: the first prompt makes them
    run(step, ids[:3])
    run(step, ids[3:4])
    step.forget()
    step.windows.clear()
    run(step, ids[:20])  # of an earlier turn: it must not be written over
    step.prepare(41, 540)
    assert step.windows == [256, 512, 768]
    close(run(step, ids[20:40]), expected[39])
    held = [layer.keys.data_ptr() for layer in step.cache.layers]
    for place in range(40, 540):
        close(run(step, [ids[place]]), expected[place])
    assert step.windows == [256, 512, 768]  # none in the middle of the answer
    assert [layer.keys.data_ptr() for layer in step.cache.layers] == held
    assert len(step.streams) == 1
    step.forget()
    step.prepare(21, 540)
    assert step.windows == [256, 512, 768]  # the next answer finds them


def test_without_memory_to_make_graphs_ahead_the_answer_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_llama()
    step = OnFakeCuda(model, monkeypatch)
    expected = whole(model, TOKENS)
    run(step, TOKENS[:4])
    grown = GrowingLayer._grown

    def full(layer: Any, *given: Any) -> Any:
        if layer is step.cache.layers[1]:
            raise torch.OutOfMemoryError
        return grown(layer, *given)

    monkeypatch.setattr(GrowingLayer, "_grown", full)
    step.prepare(5, 2000)
    for place in range(4, len(TOKENS)):
        close(run(step, [TOKENS[place]]), expected[place])


class Remembering(StaticStep):
    """Stands in for captured graphs: each knows the buffers that it was captured over."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, "graph")
        self.captured: dict[int, list[tuple[int, int]]] = {}

    def forget(self) -> None:
        for layer in self.cache.layers:
            layer.length = 0

    def _moved(self) -> None:
        self.captured.clear()

    def _decode(self, window: int) -> Any:
        now = [(layer.keys.data_ptr(), layer.keys.shape[-2]) for layer in self.cache.layers]
        assert self.captured.setdefault(window, now) == now, "a graph is replayed over dead memory"
        return super()._decode(window)


def test_no_graph_outlives_its_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Remembering(tiny_llama())
    one = torch.tensor([[3]])

    def answer(prompt: int) -> None:
        step.run(torch.randint(0, VOCABULARY, (1, prompt)))
        step.run(one)
        step.forget()

    answer(40)
    assert set(step.captured) == {256}
    answer(40)
    answer(300)  # the prompt itself outgrows the buffers
    assert set(step.captured) == {512}
    answer(40)
    assert set(step.captured) == {256, 512}

    # Memory that runs out in the middle: some layers have moved, and some have not.
    step.run(torch.randint(0, VOCABULARY, (1, 512)))
    third, grown = step.cache.layers[2], GrowingLayer._grown

    def full(layer: Any, *given: Any) -> Any:
        if layer is third:
            raise torch.OutOfMemoryError
        return grown(layer, *given)

    monkeypatch.setattr(GrowingLayer, "_grown", full)
    with pytest.raises(torch.OutOfMemoryError):
        step.run(one)
    monkeypatch.setattr(GrowingLayer, "_grown", grown)
    step.forget()
    answer(40)
    assert set(step.captured) == {256}
