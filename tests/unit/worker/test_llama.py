"""The engine `gguf`, with a tiny random model in llama.cpp."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pytest
import torch
from gguf import GGMLQuantizationType

from fakes import tiny_gguf
from fakes.llama_models import CHAT, ask, load_tiny
from quantchat.wire.messages import END, Message, Prefilled, Sampling, ScoreTokens, Started
from quantchat.worker.decode.sampling import Sampler
from quantchat.worker.failures import Refused
from quantchat.worker.loaders import decoder_of

if TYPE_CHECKING:
    from quantchat.worker.llama.decoder import LlamaDecoder

LONG = [Message("user", "the " * 300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf").parent


@pytest.fixture(scope="module")
def decoder(folder: Path) -> LlamaDecoder:
    return made(folder)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> LlamaDecoder:
    """With float32 weights, whose activations are not rounded to 8 bits."""
    file = tmp_path_factory.mktemp("exact") / "tiny.gguf"
    tiny_gguf.write_tiny(file, GGMLQuantizationType.F32)
    return made(file.parent, type_k="f32", type_v="f32")


def made(folder: Path, **options: Any) -> LlamaDecoder:
    model = load_tiny(folder, **options)
    decoder: Any = decoder_of(model, model.command, lambda stage: None)
    made: LlamaDecoder = decoder
    return made


def logits_of(decoder: LlamaDecoder, ids: list[int]) -> Any:
    """The logits after each of `ids`, in one block."""
    context = decoder._loaded.context(outputs=len(ids))
    context.run(ids, logit_rows=len(ids))
    found = context.logits(len(ids)).copy()
    context.close()
    return found


# ------------------------------------------------------------ answers


def test_greedy_tokens_are_the_likeliest_ones_and_end_where_asked(decoder: LlamaDecoder) -> None:
    heard = ask(decoder, tokens=24, ignore_eos=True)
    assert (heard.reason, len(heard.ids)) == ("length", 24)
    assert heard.times == sorted(heard.times)
    logits = logits_of(decoder, [*heard.prompt, *heard.ids])
    assert logits[len(heard.prompt) - 1 : -1].argmax(axis=-1).tolist() == heard.ids


def test_the_prompt_is_the_chat_in_the_template_of_the_file(decoder: LlamaDecoder) -> None:
    heard = ask(decoder, [Message("system", "Hé"), Message("user", "?")], tokens=1)
    text = decoder._loaded.tokenizer_backend.decode(heard.prompt)
    assert text == "<|im_start|>system\nHé<|im_end|>\n<|im_start|>user\n?<|im_end|>\n" + (
        "<|im_start|>assistant\n"
    )
    assert heard.prompt[0] == 1  # the mark is one token


def test_a_second_turn_computes_only_what_is_new(decoder: LlamaDecoder) -> None:
    first = ask(decoder, tokens=8, ignore_eos=True, fresh=False)
    text = decoder._loaded.tokenizer_backend.decode(first.ids, skip_special_tokens=True)
    chat = [*CHAT, Message("assistant", text), Message("user", "then")]
    second = ask(decoder, chat, tokens=8, ignore_eos=True)
    (started,) = [e for e in second.events if isinstance(e, Started)]
    prefilled = [e for e in second.events if isinstance(e, Prefilled)]
    assert started.cached_tokens >= len(first.prompt)
    assert prefilled[-1].done == prefilled[-1].total == len(second.prompt) - started.cached_tokens
    again = ask(decoder, chat, tokens=8, ignore_eos=True, fresh=True)
    assert again.ids == second.ids
    (started,) = [e for e in again.events if isinstance(e, Started)]
    assert started.cached_tokens == 0


def test_the_cache_grows_and_keeps_what_it_holds(folder: Path) -> None:
    decoder = made(folder)
    ask(decoder, tokens=4, ignore_eos=True)
    small = decoder.ledger().kv_cache
    heard = ask(decoder, tokens=400, ignore_eos=True)
    grown = decoder.ledger().kv_cache
    assert 0 < small < grown
    # It grew in the middle: the next token still depends on all before it.
    logits = logits_of(decoder, [*heard.prompt, *heard.ids[:300]])
    assert int(logits[-1].argmax()) == heard.ids[300]


def test_a_fixed_cache_is_allocated_at_once_and_limits_the_chat(folder: Path) -> None:
    decoder = made(folder, n_ctx=256)
    assert decoder.model_info().context_length == 256
    before = decoder.ledger().kv_cache
    assert ask(decoder, tokens=400, ignore_eos=True).reason == "context"
    assert decoder.ledger().kv_cache == before
    with pytest.raises(Refused, match="the model takes 256"):
        ask(decoder, LONG)


def test_the_types_of_the_cache_change_its_size(folder: Path) -> None:
    whole = made(folder, n_ctx=1024).ledger().kv_cache
    decoder = made(folder, n_ctx=1024, type_k="q8_0", type_v="q8_0")
    assert decoder.ledger().kv_cache / whole == pytest.approx(34 / 64, rel=0.1)
    assert decoder.model_info().decode == "llama.cpp, KV cache q8_0/q8_0"
    assert len(ask(decoder, ignore_eos=True).ids) == 16


def test_a_stop_ends_between_two_tokens_and_while_the_prompt_is_read(
    decoder: LlamaDecoder,
) -> None:
    calls = itertools.count()
    heard = ask(decoder, LONG, stopped=lambda _: next(calls) > 20, fresh=True)
    assert (heard.reason, heard.ids) == ("stop", [])
    whole = ask(decoder, LONG, tokens=4, ignore_eos=True)  # whatever was computed is not used twice
    assert whole.ids == ask(decoder, LONG, tokens=4, ignore_eos=True, fresh=True).ids
    heard = ask(decoder, tokens=50, ignore_eos=True)
    cut = ask(decoder, tokens=50, ignore_eos=True, stopped=lambda so_far: len(so_far.ids) == 7)
    assert (cut.reason, cut.ids) == ("stop", heard.ids[:7])


# ------------------------------------------------------------ sampling


def test_sampling_is_seeded(decoder: LlamaDecoder) -> None:
    def sampled(seed: int, **more: Any) -> list[int]:
        sampling = Sampling(temperature=1.5, seed=seed, **more)
        return ask(decoder, sampling=sampling, tokens=24, ignore_eos=True, fresh=True).ids

    assert sampled(1) == sampled(1) != sampled(2)
    assert sampled(1, top_k=1) == ask(decoder, tokens=24, ignore_eos=True, fresh=True).ids


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7),
        Sampling(temperature=1.3, top_p=0.6),
        Sampling(temperature=1.0, top_k=5),
        Sampling(temperature=0.9, top_k=8, top_p=0.8, repetition_penalty=1.4),
        Sampling(repetition_penalty=1.8),
        Sampling(presence_penalty=1.1, frequency_penalty=0.7),
        Sampling(temperature=0.9, min_p=0.2, frequency_penalty=0.7),
        Sampling(logit_bias={"5": 90.0, "6": 90.0}, repetition_penalty=1.8),
        Sampling(temperature=1.0, top_k=2, logit_bias={"5": 90.0, "7": 90.0}),
    ],
    ids=str,
)
def test_tokens_are_drawn_as_by_transformers(decoder: LlamaDecoder, sampling: Sampling) -> None:
    """The tokens that can be drawn are the same, and none comes far more often than it should."""
    prompt = ask(decoder, tokens=1).prompt
    logits = torch.from_numpy(logits_of(decoder, prompt)[-1:])
    theirs = Sampler(sampling, torch.device("cpu"), prompt)
    processed = theirs._processors(theirs._seen, logits) if theirs._processors else logits
    chances = torch.softmax(processed, -1)[0]
    drawn = Counter(
        ask(
            decoder,
            sampling=Sampling(**{**vars(sampling), "seed": seed}),
            tokens=1,
            ignore_eos=True,
        ).ids[0]
        for seed in range(200)
    )
    if sampling.temperature == 0:
        assert set(drawn) == {int(processed.argmax())}
        return
    for token, count in drawn.items():
        chance = float(chances[token])
        assert chance > 0
        spread = math.sqrt(200 * chance * (1 - chance))
        assert abs(count - 200 * chance) < 5 * spread + 1


# ------------------------------------------------------------ log-probabilities


def test_given_tokens_are_scored_with_their_ranks(exact: LlamaDecoder) -> None:
    decoder = exact
    heard = ask(decoder, tokens=80, ignore_eos=True)
    tokens = [*heard.ids, END]
    scored = decoder.score_tokens(ScoreTokens(3, CHAT, tokens, also=[7]), lambda: False)
    logits = torch.from_numpy(logits_of(decoder, [*heard.prompt, *heard.ids]))
    expected = torch.log_softmax(logits[len(heard.prompt) - 1 :].double(), -1)
    picked = [float(row[token]) for row, token in zip(expected, heard.ids, strict=False)]
    assert scored.logprobs[:-1] == pytest.approx(picked, abs=2e-2)
    ends = sorted(decoder._loaded.end_tokens)
    assert scored.logprobs[-1] == pytest.approx(
        float(torch.logsumexp(expected[-1][ends], 0)), abs=2e-2
    )
    assert scored.also == pytest.approx([float(expected[-1][7])], abs=2e-2)
    assert scored.ranks[:-1] == [0] * 80
    assert len(scored.pieces) == 81 and scored.pieces[-1] == ""
    part = decoder.score_tokens(ScoreTokens(4, CHAT, tokens, first=70, batch=2), lambda: False)
    assert part.logprobs == pytest.approx(scored.logprobs[70:], abs=2e-2)
    assert (
        ask(decoder, tokens=80, ignore_eos=True).ids == heard.ids
    )  # the chat's cache is as it was


def test_scoring_gives_way_to_the_next_command(decoder: LlamaDecoder) -> None:
    with pytest.raises(Refused, match="cancelled"):
        decoder.score_tokens(ScoreTokens(3, CHAT, [5] * 40), lambda: True)


def test_the_logits_of_a_text_are_those_of_one_pass(exact: LlamaDecoder) -> None:
    from quantchat.worker.llama.scoring import LlamaForecast

    ids = [5 + n % 200 for n in range(150)]
    forecast = LlamaForecast(exact._loaded)
    forecast._rows = 16
    found = torch.cat(list(forecast.logits(ids, 60)))
    assert found.shape == (90, forecast.vocabulary)
    # Where a prompt is cut changes its rounding; logits of another row would differ by nats.
    assert (found - torch.from_numpy(logits_of(exact, ids)[60:])).abs().mean() < 1e-2


# ------------------------------------------------------------ the tokenizer


def test_text_survives_the_tokenizer_piece_by_piece(decoder: LlamaDecoder) -> None:
    tokenizer = decoder._loaded.tokenizer_backend
    text = "the thé 日本 🙂\n\ttab <|im_end|>"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.removesuffix("<|im_end|>")
    stream = tokenizer.pieces()
    pieces = [stream.step(token) for token in ids]
    assert "".join(pieces) == text.removesuffix("<|im_end|>") and "" in pieces
    assert "�" not in "".join(pieces)


def test_the_vocabulary_is_the_same_as_in_another_library(decoder: LlamaDecoder) -> None:
    """Token ids can be compared with those of a model that transformers loaded."""
    from quantchat.worker.model.vocabulary import vocabulary_hash

    named = {token: number for number, token in enumerate(tiny_gguf.VOCABULARY)}
    assert decoder.model_info().vocabulary_hash == vocabulary_hash(named)


def test_a_system_message_that_the_template_refuses_goes_into_the_question(tmp_path: Path) -> None:
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    tiny_gguf.write_tiny(tmp_path / "m.gguf", template=refuses + tiny_gguf.TEMPLATE)
    decoder = made(tmp_path)
    heard = ask(decoder, [Message("system", "be"), Message("user", "so")], tokens=1)
    text = decoder._loaded.tokenizer_backend.decode(heard.prompt)
    assert "<|im_start|>user\nbe\n\nso<|im_end|>" in text


def test_a_base_model_continues_the_text(tmp_path: Path) -> None:
    tiny_gguf.write_tiny(tmp_path / "m.gguf", template="")
    decoder = made(tmp_path)
    assert not decoder.model_info().chat_template
    heard = ask(decoder, tokens=1)
    assert decoder._loaded.tokenizer_backend.decode(heard.prompt) == CHAT[0].content


# ------------------------------------------------------------ what is reported


def test_the_ledger_counts_tensors_by_type_and_the_buffers(tmp_path: Path) -> None:
    tiny_gguf.write_tiny(tmp_path / "m.gguf", GGMLQuantizationType.Q4_0)
    decoder = made(tmp_path)
    ledger = decoder.ledger()
    assert set(ledger.weights_by_dtype) == {"Q4_0", "F32"}
    assert ledger.weights == sum(ledger.weights_by_dtype.values())
    assert ledger.overhead == {"scales": ledger.weights_by_dtype["Q4_0"] // 18 * 2}
    assert ledger.other_live > 0 and ledger.process > ledger.weights
    model_info = decoder.model_info()
    assert model_info.kernel.startswith("llama.cpp Q4_0") and "CPU" in model_info.kernel
    assert (model_info.device, model_info.architecture) == ("cpu", "llama (GGUF)")
    assert model_info.attention == "flash"


def test_two_files_of_one_model_have_two_hashes(tmp_path: Path) -> None:
    hashes = set()
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        tiny_gguf.write_tiny(tmp_path / name / "m.gguf", seed=seed)
        hashes.add(made(tmp_path / name).model_info().checkpoint_hash)
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("", "has 2 GGUF files"),
        ("Q4_K_M", "has no GGUF file Q4_K_M"),
        ("tiny", "2 GGUF files with"),
    ],
)
def test_which_of_several_files_is_asked(wanted: str, said: str, tmp_path: Path) -> None:
    for name in ("tiny-Q8_0.gguf", "tiny-Q4_0.gguf"):
        tiny_gguf.write_tiny(tmp_path / name)
    with pytest.raises(Refused, match=said) as refused:
        load_tiny(tmp_path, gguf_file=wanted)
    assert '"tiny-Q4_0.gguf", "tiny-Q8_0.gguf"' in refused.value.failure.hint
    assert load_tiny(tmp_path, gguf_file="q4_0")._file.name == "tiny-Q4_0.gguf"


def test_a_damaged_file_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "tiny.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refused) as refused:
        load_tiny(tmp_path)
    assert refused.value.failure.kind == "bad_checkpoint"
    assert "m.gguf" in refused.value.failure.reason and "\n" not in refused.value.failure.reason


def test_a_gpu_needs_a_build_for_it(folder: Path) -> None:
    pytest.importorskip("llama_cpp")
    from dataclasses import replace

    from fakes.llama_models import command
    from quantchat.worker.llama.library import gpus
    from quantchat.worker.loaders import gguf

    if gpus():
        pytest.skip("this build has a GPU")
    with pytest.raises(Refused, match="is built without CUDA") as refused:
        gguf.load(replace(command(folder), device="cuda:0"), lambda stage: None)
    assert "GGML_CUDA=on" in refused.value.failure.hint
    assert numpy.isfinite(logits_of(made(folder), [1, 2, 3])).all()
