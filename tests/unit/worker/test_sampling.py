"""Sampling gives the same as `generate` for the same settings and logits."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig, LogitsProcessorList

from fakes.tiny_llama import VOCABULARY, tiny_llama
from quantchat.wire.messages import Sampling
from quantchat.worker.decode.sampling import OutputPenalties, Sampler, penalties

CPU = torch.device("cpu")
MODEL = tiny_llama(num_hidden_layers=1)

samplings = st.builds(
    Sampling,
    temperature=st.one_of(st.just(1.0), st.floats(0.05, 3.0)),
    top_p=st.one_of(st.just(1.0), st.floats(0.05, 0.99)),
    top_k=st.integers(0, 2 * VOCABULARY),
    repetition_penalty=st.one_of(st.just(1.0), st.floats(0.5, 2.0)),
    seed=st.integers(0, 2**63 - 1),
    min_p=st.one_of(st.just(0.0), st.floats(0.01, 0.5)),
    presence_penalty=st.one_of(st.just(0.0), st.floats(-2, 2)),
    frequency_penalty=st.one_of(st.just(0.0), st.floats(-2, 2)),
)
prompts = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


def processors_of_generate(sampling: Sampling, prompt: list[int]) -> Any:
    """The processors that transformers' `generate` builds for the same settings, in its order."""
    config = GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        min_p=sampling.min_p or None,
    )
    return MODEL._get_logits_processor(
        config,
        input_ids_seq_length=len(prompt),
        logits_processor=LogitsProcessorList(penalties(sampling, len(prompt))),
    )


def rows(seed: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Logits of `count` steps, (count, vocabulary), spread as a model's are."""
    made = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(count, VOCABULARY, generator=made)).to(dtype)


@given(samplings, prompts, st.integers(0, 2**32), dtypes)
@settings(max_examples=60, deadline=None)
def test_sampled_tokens_are_generates(
    sampling: Sampling, prompt: list[int], seed: int, dtype: torch.dtype
) -> None:
    processors = processors_of_generate(sampling, prompt)
    generator = torch.Generator().manual_seed(sampling.seed)
    sampler = Sampler(sampling, CPU, prompt)
    seen = torch.tensor([prompt])
    for logits in rows(seed, 6, dtype).split(1):
        chances = torch.softmax(processors(seen, logits.float()), dim=-1)
        expected = torch.multinomial(chances, 1, generator=generator)
        assert torch.equal(sampler.choose(logits), expected)
        seen = torch.cat([seen, expected], dim=-1)


@given(prompts, st.floats(0.5, 2.0), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_the_penalty_counts_without_sampling_too(
    prompt: list[int], penalty: float, seed: int
) -> None:
    config = GenerationConfig(do_sample=False, repetition_penalty=penalty)
    processors: Any = MODEL._get_logits_processor(config, input_ids_seq_length=len(prompt))
    sampler = Sampler(Sampling(repetition_penalty=penalty), CPU, prompt)
    seen = torch.tensor([prompt])
    for logits in rows(seed, 6, torch.float32).split(1):
        expected = processors(seen, logits).argmax(dim=-1, keepdim=True)
        assert torch.equal(sampler.choose(logits), expected)
        seen = torch.cat([seen, expected], dim=-1)


def test_presence_and_frequency_count_the_answer_alone() -> None:
    lower = OutputPenalties(presence=0.5, frequency=0.25, prompt=2)
    seen = torch.tensor([[7, 7, 1, 1, 3]])  # the prompt is 7 7
    assert lower(seen, torch.zeros(1, 8))[0].tolist() == [0, -1.0, 0, -0.75, 0, 0, 0, 0]


@given(samplings, st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_a_seed_gives_the_same_tokens_whatever_was_drawn_before(
    sampling: Sampling, seed: int
) -> None:
    steps = rows(seed, 8, torch.float32).split(1)
    first = Sampler(sampling, CPU, [1])
    said = [int(first.choose(logits)) for logits in steps]
    torch.rand(3)  # the library's own generator is not asked
    again = Sampler(sampling, CPU, [1])
    assert [int(again.choose(logits)) for logits in steps] == said


class _NoWaiting(TorchDispatchMode):  # type: ignore[misc]
    """Fails where the host would look at a value: on a GPU it would wait until that is computed."""

    WAITING = ("_local_scalar_dense", "multinomial", "nonzero", "is_nonzero", "masked_select")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.WAITING, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


@given(samplings, prompts, st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_choosing_never_waits_for_the_device(
    sampling: Sampling, prompt: list[int], seed: int
) -> None:
    for chosen in (sampling, Sampling(repetition_penalty=1.2), Sampling()):
        sampler = Sampler(chosen, CPU, prompt)
        with _NoWaiting():
            for logits in rows(seed, 3, torch.bfloat16).split(1):
                sampler.choose(logits)
