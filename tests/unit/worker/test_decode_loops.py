"""The decode loops: their tokens, when they stop, and what they cache for the next turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from fakes.tiny_llama import VOCABULARY, tiny_llama
from quantchat.wire.messages import Prefilled, Sampling
from quantchat.worker.decode import generate_loop
from quantchat.worker.decode.cpu.llama_step import llama_step
from quantchat.worker.decode.generate_loop import CHUNKS_AFTER_A_CACHE, GenerateLoop
from quantchat.worker.decode.loop import Loop, RunningAnswer, common_prefix
from quantchat.worker.decode.modes import ignored_settings
from quantchat.worker.decode.native_loop import CHUNK, PREPARED_TOKENS, NativeLoop, TokenReader
from quantchat.worker.decode.steps.eager import EagerStep

CPU = torch.device("cpu")


def fused(model: Any) -> Loop:
    step = llama_step(model)
    assert step is not None
    return NativeLoop(step, CPU)


class LaggingReader(TokenReader):
    """Reads as on a GPU: the step after is run before a token is known."""

    def __init__(self, device: Any) -> None:
        super().__init__(device)
        self.is_async = True

    def begin(self, token: Any) -> None:
        self._kept = int(token)

    def read(self) -> int:
        return self._kept


class LaggingLoop(NativeLoop):
    def _token_reader(self) -> TokenReader:
        return LaggingReader(CPU)


LOOPS: dict[str, Callable[[Any], Loop]] = {
    "generate": lambda model: GenerateLoop(model, CPU),
    "eager": lambda model: NativeLoop(EagerStep(model), CPU),
    "fused": fused,
    "lagging": lambda model: LaggingLoop(EagerStep(model), CPU),
}
each_loop = pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS.keys())


@dataclass
class Listener:
    """Hears what a loop says, in place of the outbox, and asks it to stop."""

    stop_after: int = -1
    """Tokens after which a stop is asked for; 0: before the first."""
    stop_at_chunk: int = -1
    stop_when_asked: int = -1
    """How often it is asked until it says so."""
    asked: int = 0
    ids: list[int] = field(default_factory=list)
    chunks: list[tuple[int, int]] = field(default_factory=list)

    def send(self, event: Any) -> None:
        assert isinstance(event, Prefilled)
        self.chunks.append((event.done, event.total))

    def token(self, token: int, _time_ns: int) -> None:
        self.ids.append(token)

    def stopped(self, _turn: int) -> bool:
        self.asked += 1
        return (
            0 <= self.stop_after <= len(self.ids)
            or 0 <= self.stop_at_chunk <= len(self.chunks)
            or 0 <= self.stop_when_asked <= self.asked
        )


def answer(
    loop: Loop,
    prompt: list[int],
    most: int = 16,
    sampling: Sampling | None = None,
    end_tokens: frozenset[int] = frozenset(),
    listener: Listener | None = None,
    thinking: Any = None,
) -> tuple[list[int], str, int]:
    """The tokens said, why it ended, and how many tokens of the prompt were kept from before."""
    heard = listener or Listener()
    kept = loop.rewind(prompt)
    running = RunningAnswer(1, sampling or Sampling(), most, end_tokens, heard, heard.stopped)  # type: ignore[arg-type]
    running = replace(running, thinking=thinking)
    reason = loop.answer(prompt, running)
    return heard.ids, reason, kept


def prompt_of(length: int, seed: int = 1) -> list[int]:
    return [(seed * 31 + 7 * n * n) % VOCABULARY for n in range(length)]


prompts = st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=80)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    top_k=st.sampled_from([0, 1, 5, 50]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    seed=st.integers(0, 2**32),
    min_p=st.sampled_from([0.0, 0.2]),
    presence_penalty=st.sampled_from([0.0, 0.9]),
    frequency_penalty=st.sampled_from([0.0, 0.7]),
    logit_bias=st.sampled_from([{}, {"7": 3.5, "9": -100.0}]),
)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama()


@given(prompts, samplings)
@settings(max_examples=15, deadline=None)
def test_each_loop_says_what_generate_says(prompt: list[int], sampling: Sampling) -> None:
    """Greedy or sampled: the same logits, processors and seed give the same tokens."""
    model = tiny_llama()
    expected, reason, _ = answer(LOOPS["generate"](model), prompt, 64, sampling)
    assert len(expected) == 64
    assert reason == "length"
    for name in ("eager", "fused", "lagging"):
        assert answer(LOOPS[name](model), prompt, 64, sampling) == (expected, "length", 0), name


class InsertsAfter:
    """In place of a `ThinkingLimit`: inserts `tokens` after `count` tokens."""

    def __init__(self, count: int, tokens: list[int]) -> None:
        self._tokens: list[int | None] = [*[None] * count, *tokens]

    def add(self, _token: int) -> None:
        self._tokens = self._tokens[1:] if self._tokens else []

    @property
    def next_token(self) -> int | None:
        return self._tokens[0] if self._tokens else None


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=1.3, seed=3, frequency_penalty=0.7)], ids=str
)
def test_inserted_tokens_are_part_of_the_answer_in_each_loop(sampling: Sampling) -> None:
    """What follows them is what the model says after them, and the penalties know them."""
    model, prompt = tiny_llama(), prompt_of(12)
    free, _, _ = answer(LOOPS["generate"](model), prompt, 24, sampling)
    inserted = [(free[5] + 1) % VOCABULARY, (free[6] + 1) % VOCABULARY]
    said = {}
    for name, make in LOOPS.items():
        loop = make(model)
        said[name], reason, _ = answer(
            loop, prompt, 24, sampling, thinking=InsertsAfter(6, inserted)
        )
        assert reason == "length"
    assert len({tuple(ids) for ids in said.values()}) == 1, said
    ids = said["eager"]
    assert len(ids) == 24
    assert (ids[:6], ids[6:8]) == (free[:6], inserted)
    if sampling.temperature == 0:
        told, _, _ = answer(LOOPS["eager"](model), [*prompt, *ids[:8]], 16, sampling)
        assert ids[8:] == told


def test_a_lagging_loop_is_a_step_ahead_but_not_of_the_first_token(model: Any) -> None:
    """TTFT must not hold the launching of a second step; later ones are queued in time."""
    order: list[str] = []

    class Telling(EagerStep):
        def run(self, tokens: Any, stopped: Any = None) -> Any:
            order.append("prompt" if tokens.shape[1] > 1 else "step")
            return super().run(tokens, stopped)

    class Heard(Listener):
        def token(self, token: int, time_ns: int) -> None:
            order.append("heard")
            super().token(token, time_ns)

    answer(LaggingLoop(Telling(model), CPU), prompt_of(9), 4, listener=Heard())
    assert order == ["prompt", "heard", "step", "step", "heard", "step", "heard", "heard"]


@pytest.mark.parametrize("kept", [0, 5, 600])
def test_generate_takes_a_long_prompt_in_pieces(
    model: Any, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = prompt_of(2 * CHUNK + 100)
    widths: list[int] = []
    watch = model.model.embed_tokens.register_forward_pre_hook(
        lambda _, inputs: widths.append(inputs[0].shape[1])
    )
    found = []
    cut = CHUNKS_AFTER_A_CACHE or not kept
    for most in (CHUNK, 10**9):
        monkeypatch.setattr(generate_loop, "CHUNK", most)
        loop = GenerateLoop(model, CPU)
        if kept:
            answer(loop, prompt[:kept], 1)
        widths.clear()
        found.append(answer(loop, prompt, 24))
        assert max(widths) == (min(most, len(prompt) - kept) if cut else len(prompt) - kept)
        assert sum(widths) == len(prompt) - kept + 23
    watch.remove()
    assert found[0] == found[1]
    assert (len(found[0][0]), found[0][2]) == (24, kept)


@each_loop
def test_an_end_token_ends_it_and_is_not_said(make: Callable[[Any], Loop], model: Any) -> None:
    said, _, _ = answer(make(model), prompt_of(9), 12)
    end = said[7]
    first = said.index(end)
    found = answer(make(model), prompt_of(9), 12, end_tokens=frozenset({end}))
    assert found == (said[:first], "eos", 0)


@each_loop
@pytest.mark.parametrize("stop_after", [1, 5])
def test_a_stop_between_two_tokens(
    make: Callable[[Any], Loop], model: Any, stop_after: int
) -> None:
    whole, _, _ = answer(make(model), prompt_of(9), 12)
    loop = make(model)
    listener = Listener(stop_after=stop_after)
    said, reason, _ = answer(loop, prompt_of(9), 12, listener=listener)
    assert (said, reason) == (whole[:stop_after], "stop")
    assert answer(loop, prompt_of(9), 12)[:2] == (whole, "length")  # and the cache is sound


@each_loop
def test_a_stop_while_the_prompt_is_computed(make: Callable[[Any], Loop], model: Any) -> None:
    loop = make(model)
    prompt = prompt_of(CHUNK + 40)
    whole, _, _ = answer(make(model), prompt, 5)
    at_once = Listener(stop_after=0)
    assert answer(loop, prompt, 5, listener=at_once)[:2] == ([], "stop")
    assert answer(loop, prompt, 5)[:2] == (whole, "length")


def test_a_stop_between_two_chunks_keeps_what_was_computed(model: Any) -> None:
    loop = LOOPS["fused"](model)
    prompt = prompt_of(CHUNK + 4)
    assert answer(loop, prompt, 5, listener=Listener(stop_at_chunk=1))[:2] == ([], "stop")
    listener = Listener()
    assert answer(loop, prompt, 5, listener=listener)[2] == CHUNK
    assert listener.chunks == [(4, 4)]


@pytest.mark.parametrize("name", ["eager", "fused"])
def test_a_stop_between_two_blocks_keeps_what_was_there(name: str, model: Any) -> None:
    prompt = prompt_of(40)
    expected = answer(LOOPS[name](model), [*prompt, *prompt_of(30, seed=2)], 5)[0]
    loop = LOOPS[name](model)
    answer(loop, prompt, 1)
    longer = [*prompt, *prompt_of(30, seed=2)]
    listener = Listener(stop_when_asked=3)  # before the chunk, before block 1, before block 2
    assert answer(loop, longer, 5, listener=listener)[:2] == ([], "stop")
    assert answer(loop, longer, 5) == (expected, "length", len(prompt))


@each_loop
def test_only_what_is_new_is_computed(make: Callable[[Any], Loop], model: Any) -> None:
    """The next turn, an edited one and the same again, each as if it stood alone."""
    loop = make(model)
    first = prompt_of(20)
    said, _, _ = answer(loop, first, 8)
    following = [*first, *said, *prompt_of(6, seed=2)]
    edited = [*first[:12], *prompt_of(9, seed=3)]
    for prompt, least in [(following, 27), (following, 33), (edited, 12), (first, 12)]:
        expected, _, _ = answer(make(model), prompt, 8)
        listener = Listener()
        found, _, kept = answer(loop, prompt, 8, listener=listener)
        assert found == expected
        assert least <= kept < len(prompt)
        assert listener.chunks[-1] == (len(prompt) - kept,) * 2


@each_loop
def test_what_is_forgotten_takes_no_memory(make: Callable[[Any], Loop], model: Any) -> None:
    loop = make(model)
    answer(loop, prompt_of(20), 4)
    assert loop.kv_bytes() > 0
    loop.forget()
    assert loop.kv_bytes() == 0
    assert loop.rewind(prompt_of(20)) == 0


@each_loop
def test_warming_up_says_nothing(make: Callable[[Any], Loop], model: Any) -> None:
    loop = make(model)
    loop.warm_up(prompt_of(8), 3)
    loop.forget()
    assert answer(loop, prompt_of(9), 6) == answer(make(model), prompt_of(9), 6)


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3), min_size=1))
def test_the_common_prefix_leaves_a_token_to_compute(old: list[int], new: list[int]) -> None:
    same = common_prefix(old, new)
    assert same < len(new)
    assert old[:same] == new[:same]
    assert same == len(new) - 1 or same == len(old) or old[same] != new[same]


def test_a_step_is_made_ready_before_an_answer_for_all_of_it() -> None:
    class Ready(EagerStep):
        def __init__(self, model: Any) -> None:
            super().__init__(model)
            self.told: list[Any] = []

        def prepare(self, first: int, last: int) -> None:
            self.told.append((first, last))

        def run(self, tokens: Any, stopped: Any = None) -> Any:
            self.told.append(tokens.shape[1])
            return super().run(tokens, stopped)

    step = Ready(tiny_llama())
    loop = NativeLoop(step, CPU)
    for most in (3, PREPARED_TOKENS + 1):
        step.told.clear()
        answer(loop, [1, 2, 3, 4], most, listener=Listener(stop_after=2))
        assert step.told[0] == (5, 4 + min(most, PREPARED_TOKENS))
        assert step.told[1] == 4
        loop.forget()


@pytest.mark.parametrize(
    "wish",
    [
        {"suppress_tokens": "first"},
        {"begin_suppress_tokens": "first"},
        {"bad_words_ids": "first"},
        {"forced_eos_token_id": 2},
        {"no_repeat_ngram_size": 1},
        {"repetition_penalty": 1.7},
        {"min_new_tokens": 3},
        {"stop_strings": ["stop"]},
        {"cache_implementation": "static"},
        {"num_beams": 4},
        {"watermarking_config": {"greenlist_ratio": 0.25, "bias": 8.0}},
    ],
    ids=lambda wish: next(iter(wish)),
)
def test_no_loop_follows_the_checkpoint_s_own_wishes(wish: dict[str, Any]) -> None:
    """Both say the same, by the request's settings alone."""
    model = tiny_llama()
    expected, _, _ = answer(LOOPS["generate"](model), prompt_of(20))
    ((name, value),) = wish.items()
    if value == "first":
        value = [[expected[0]]] if name == "bad_words_ids" else [expected[0]]
    wishes = GenerationConfig(**{name: value})
    model.generation_config = wishes
    for loop in ("generate", "eager"):
        assert answer(LOOPS[loop](model), prompt_of(20))[0] == expected, loop
    assert model.generation_config is wishes
    reported = name not in ("repetition_penalty", "cache_implementation")  # a profile sets these
    assert ignored_settings(wishes) == ([name] if reported else [])
