"""Speculative decoding: the same tokens as without a draft, and how many drafts were accepted."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fakes.tiny_folder import tiny_folder, tokenizer
from fakes.tiny_llama import VOCABULARY, loaded, tiny_llama
from quantchat.wire.messages import PROMPT_LOOKUP, Drafted, LoadModel, Prefilled, Sampling
from quantchat.worker import loaders
from quantchat.worker.decode.decoder import Decoder
from quantchat.worker.decode.draft import Draft
from quantchat.worker.decode.generate_loop import GenerateLoop
from quantchat.worker.decode.loop import RunningAnswer
from quantchat.worker.failures import Refused
from quantchat.worker.memory import TensorBytes

CPU = torch.device("cpu")


class Heard:
    """Collects an answer, in place of the outbox, and asks to stop after some tokens."""

    def __init__(self, stop_after: int | None = None) -> None:
        self._stop_after = stop_after
        self.ids: list[int] = []
        self.times: list[int] = []
        self.drafted = Drafted(0, 0, 0, 0)
        self.prefilled = 0

    def send(self, event: Any) -> None:
        if isinstance(event, Drafted):
            self.drafted = event
        elif isinstance(event, Prefilled):
            self.prefilled += 1

    def token(self, token: int, time_ns: int) -> None:
        self.ids.append(token)
        self.times.append(time_ns)

    def stopped(self, _turn: int) -> bool:
        return self._stop_after is not None and len(self.ids) >= self._stop_after


def model(**config: Any) -> Any:
    """A tiny model that prefers some tokens clearly, so that rounding changes no choice."""
    made = tiny_llama(**config)
    made.lm_head.weight.data *= 8
    return made


def similar(to: Any) -> Any:
    """The model with noise in its weights: it proposes the same tokens sometimes."""
    made = model()
    torch.manual_seed(1)
    with torch.no_grad():
        for own, other in zip(made.parameters(), to.parameters(), strict=True):
            own.copy_(other + 0.01 * other.std() * torch.randn_like(own))
    return made


def ask(
    loop: GenerateLoop,
    prompt: list[int],
    most: int = 32,
    sampling: Sampling | None = None,
    end_tokens: frozenset[int] = frozenset(),
    heard: Heard | None = None,
    **more: Any,
) -> tuple[Heard, str]:
    heard = heard or Heard()
    assert loop.rewind(prompt) < len(prompt)
    running = RunningAnswer(1, sampling or Sampling(), most, end_tokens, heard, heard.stopped)  # type: ignore[arg-type]
    return heard, loop.answer(prompt, replace(running, **more))


def prompt_of(length: int, seed: int = 1) -> list[int]:
    return [(seed * 31 + 7 * n * n) % VOCABULARY for n in range(length)]


TARGET = model()
DRAFTS = {
    "itself": Draft(model()),
    "similar": Draft(similar(TARGET), 4),
    "lookup": Draft(None, 5),
}
each_draft = pytest.mark.parametrize("draft", DRAFTS.values(), ids=DRAFTS)


def with_draft(draft: Draft) -> GenerateLoop:
    return GenerateLoop(TARGET, CPU, draft=draft)


def without(prompt: list[int], most: int = 32, sampling: Sampling | None = None) -> list[int]:
    return ask(GenerateLoop(TARGET, CPU), prompt, most, sampling)[0].ids


@each_draft
def test_greedy_tokens_are_those_without_a_draft_in_each_turn(draft: Draft) -> None:
    loop, prompt = with_draft(draft), prompt_of(20)
    for _ in range(2):  # the chat goes on: nothing wrong is left in the KV cache
        heard, reason = ask(loop, prompt)
        assert (heard.ids, reason) == (without(prompt), "length")
        assert heard.prefilled == 1
        prompt = [*prompt, *heard.ids, *prompt_of(5, seed=2)]


def test_the_model_accepts_all_of_its_own_drafts() -> None:
    drafted = ask(with_draft(DRAFTS["itself"]), prompt_of(20))[0].drafted
    assert drafted.accepted == drafted.drafted > 0
    assert drafted.steps + drafted.accepted == 32


@pytest.mark.parametrize("name", ["similar", "lookup"])
def test_other_drafts_are_accepted_in_part(name: str) -> None:
    heard, _ = ask(with_draft(DRAFTS[name]), [*prompt_of(20), *without(prompt_of(20))[:16]])
    drafted = heard.drafted
    assert 0 < drafted.accepted < drafted.drafted
    assert drafted.steps + drafted.accepted == len(heard.ids)
    assert drafted.steps > 32 / (1 + (DRAFTS[name].tokens))  # never more at once than it may


@each_draft
def test_tokens_of_one_pass_are_known_at_the_same_time(draft: Draft) -> None:
    heard, _ = ask(with_draft(draft), prompt_of(20))
    assert len(set(heard.times)) == heard.drafted.steps
    assert heard.times == sorted(heard.times)


@each_draft
@pytest.mark.parametrize("stop_after", [0, 1, 6])
def test_a_stop_and_the_turn_after_it(draft: Draft, stop_after: int) -> None:
    loop, prompt = with_draft(draft), prompt_of(20)
    heard, reason = ask(loop, prompt, heard=Heard(stop_after))
    assert (heard.ids, reason) == (without(prompt)[:stop_after], "stop")
    after = [*prompt, *heard.ids, 3, 4]
    assert ask(loop, after)[0].ids == without(after)


@each_draft
def test_an_end_token_within_a_draft_ends_the_answer(draft: Draft) -> None:
    whole = without(prompt_of(20))
    for at in (0, 5):
        heard, reason = ask(with_draft(draft), prompt_of(20), end_tokens=frozenset({whole[at]}))
        assert (heard.ids, reason) == (whole[: whole.index(whole[at])], "eos")


@each_draft
def test_sampled_answers_are_seeded(draft: Draft) -> None:
    sampling = Sampling(temperature=0.8, top_p=0.9, seed=5, frequency_penalty=0.5)
    one, other = (ask(with_draft(draft), prompt_of(20), 24, sampling)[0] for _ in range(2))
    assert len(one.ids) == 24 and one.ids == other.ids
    assert one.drafted == other.drafted


def test_the_kv_cache_of_the_draft_counts() -> None:
    plain = GenerateLoop(TARGET, CPU)
    ask(plain, prompt_of(20))
    loop = with_draft(DRAFTS["itself"])
    ask(loop, prompt_of(20))
    assert 1.8 * plain.kv_bytes() < loop.kv_bytes() < 2.4 * plain.kv_bytes()
    loop.forget()
    assert loop.kv_bytes() == 0


def test_a_limit_of_thoughts_is_refused() -> None:
    with pytest.raises(Refused, match="max_thinking_tokens") as caught:
        ask(with_draft(DRAFTS["itself"]), prompt_of(9), thinking=object())
    assert "leave out `draft`" in caught.value.failure.hint


# ------------------------------------------------------------ from folders


def opened(folder: Path, draft: str, mode: str = "auto", **more: Any) -> Decoder:
    """Load the model in `folder` with `draft` as a worker does."""
    command = LoadModel(
        "transformers", str(folder), {"draft": draft, **more}, dtype="float32", device="cpu"
    )
    drafting = loaders.load_draft(command, lambda stage: None, lambda done, total: None)
    made = loaders.load(command, lambda stage: None)
    decoder = loaders.decoder_of(made, command, lambda stage: None, drafting)
    assert isinstance(decoder, Decoder)
    return decoder


def test_the_draft_is_named_and_counted_in_the_ledger(tmp_path: Path) -> None:
    folder, small = tiny_folder(tmp_path / "one"), tmp_path / "small"
    tiny_folder(small, num_hidden_layers=1)
    decoder = opened(folder, str(small))
    ran, ledger = decoder.model_info(), decoder.ledger()
    assert (ran.decode, ran.draft, ran.decoding) == (
        "generate", str(small), "generate, draft small",
    )  # fmt: skip
    weights = TensorBytes.of(tiny_llama(num_hidden_layers=1)).by_dtype.total()
    assert ledger.draft == weights < ledger.weights
    assert "from its start" in decoder.note
    looked_up = opened(folder, PROMPT_LOOKUP)
    assert looked_up.model_info().decoding == "generate, draft prompt-lookup"
    assert looked_up.ledger().draft == 0


def test_a_vocabulary_that_is_only_padded_is_the_same(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "one")
    padded = tiny_folder(tmp_path / "padded", vocab_size=VOCABULARY + 31)
    tokenizer().save_pretrained(padded)
    for target, draft in itertools.permutations((folder, padded)):
        loop = opened(target, str(draft))._loop
        assert isinstance(loop, GenerateLoop)
        expected = opened(target, PROMPT_LOOKUP)._loop
        assert isinstance(expected, GenerateLoop)
        for sampling in (Sampling(), Sampling(temperature=1.0, seed=2)):
            heard, _ = ask(loop, prompt_of(20), sampling=sampling)
            assert heard.drafted.drafted > 0
            if not sampling.temperature:
                assert heard.ids == ask(expected, prompt_of(20))[0].ids


def refusal(folder: Path, draft: str, mode: str = "auto") -> str:
    with pytest.raises(Refused) as caught:
        opened(folder, draft, mode)
    return f"{caught.value.failure.reason}; {caught.value.failure.hint}"


def test_another_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    folder, other = tiny_folder(tmp_path / "one"), tiny_folder(tmp_path / "other")
    file = other / "tokenizer.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"b": 66', '"b": 65'), "utf-8")
    said = refusal(folder, str(other))
    assert str(other) in said and "another tokenizer" in said and "is 66 in the model" in said
    assert "leave out `draft`" in said


def test_a_draft_that_is_not_there_or_is_pickled_is_refused_by_name(tmp_path: Path) -> None:
    folder, pickled = tiny_folder(tmp_path / "one"), tiny_folder(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert refusal(folder, str(pickled)).startswith(f"the draft {pickled}: ")
    assert "pickle" in refusal(folder, str(pickled))


def test_other_modes_and_caches_that_cannot_go_back_are_refused() -> None:
    from quantchat.worker.decode import modes
    from quantchat.worker.decode.cache_rules import CacheRules

    with pytest.raises(Refused, match='decode = "eager"'):
        modes.choose(loaded(TARGET), "eager", lambda stage: None, DRAFTS["lookup"])
    with pytest.raises(Refused, match="cannot go back"):
        GenerateLoop(TARGET, CPU, CacheRules(longrope_limit=64), draft=DRAFTS["lookup"])
