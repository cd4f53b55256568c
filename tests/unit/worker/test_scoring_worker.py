"""Scoring a text: the windows, the cached logits, and the figures computed from them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fakes.tiny_folder import BEGIN, LETTERS, tiny_folder, tokenizer
from fakes.tiny_llama import VOCABULARY, tiny_llama
from quantchat.wire.jobs import ScoreJob, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import score
from quantchat.worker.scoring import logits as forecasting
from quantchat.worker.scoring.logit_store import LogitReader, LogitWriter, divergence
from quantchat.worker.scoring.logits import Forecast
from quantchat.worker.scoring.windows import Tokens, Windows, check, read_tokens

TEXT = "It was a dark and stormy night; the rain fell in torrents, and so did the numbers.\n" * 3


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job makes its process nicer and moves it: not the tests' own."""
    monkeypatch.setattr(score, "prepare_process", lambda workspace: None)


def told(*_: object) -> None:
    pass


# ------------------------------------------------------------ windows


def test_windows_without_overlap_are_llama_cpps() -> None:
    windows = Windows(512, 512)
    # `first = n_ctx / 2`; n_ctx - 1 - first tokens of each chunk are scored.
    assert (windows.context, windows.scored) == (257, 512 - 1 - 256)
    assert list(windows.starts(1535)) == [0, 512]


@given(st.integers(4, 200), st.integers(1, 200), st.integers(0, 2000))
def test_no_token_is_scored_twice_and_each_has_one_before_it(
    window: int, stride: int, tokens: int
) -> None:
    stride = min(window, stride)
    windows = Windows(window, stride)
    assert 1 <= windows.context < window
    scored = [
        start + place
        for start in windows.starts(tokens)
        for place in range(windows.context, window)
    ]
    assert len(scored) == len(set(scored)) == len(windows.starts(tokens)) * windows.scored
    assert all(0 < place < tokens for place in scored)
    if stride < window and scored:  # overlapping windows leave out nothing between
        assert scored == list(range(windows.context, scored[-1] + 1))


def test_a_text_is_cut_into_tokens_after_its_bos(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("abc\r\ndef" * 9, encoding="utf-8", newline="")
    plain = read_tokens(tokenizer(), file, 0)
    begun = read_tokens(tokenizer(begins=True), file, 0)
    bos = len(LETTERS)
    assert plain.begin is None
    assert begun.begin == bos
    assert begun.ids == [bos, *plain.ids]
    assert len(plain.ids) == 8 * 9
    assert begun.window(8, Windows(4, 4)) == [bos, *begun.ids[9:12]]
    assert plain.window(8, Windows(4, 4)) == plain.ids[8:12]
    assert plain.digest != begun.digest
    assert read_tokens(tokenizer(), file, 5).ids == plain.ids[:5]
    assert read_tokens(tokenizer(), file, 500).ids == plain.ids


def test_more_is_read_where_tokens_are_long(tmp_path: Path) -> None:
    class Words:
        bos_token_id = None

        def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
            return {"input_ids": [len(word) for word in text.split()]}

    file = tmp_path / "text"
    file.write_text(("x" * 40 + " ") * 20, encoding="utf-8")
    assert read_tokens(Words(), file, 10).ids == [40] * 10


def test_what_cannot_be_read_is_refused_with_what_to_do() -> None:
    with pytest.raises(Refused, match="takes 8") as caught:
        check(Tokens([1] * 100, None), Windows(16, 16), 8)
    assert caught.value.failure.hint == "use --window 8"
    with pytest.raises(Refused, match="less than one window"):
        check(Tokens([1] * 15, None), Windows(16, 16), 1024)


# ------------------------------------------------------------ what is kept


def test_what_is_kept_is_read_back_as_a_distribution_close_to_what_was_said(tmp_path: Path) -> None:
    torch.manual_seed(1)
    logits = torch.randn(12, 5000) * 6 + 300  # an offset costs nothing: the largest is taken off
    with LogitWriter(tmp_path / "kept") as writer:
        told_ = torch.cat([writer.write(logits[:5]), writer.write(logits[5:])])
    with LogitReader(tmp_path / "kept", 12, 5000) as reader:
        read = torch.cat([reader.read(4, "cpu"), reader.read(8, "cpu")])
    assert torch.equal(read, told_)
    assert torch.allclose(read.exp().sum(dim=-1), torch.ones(12), atol=1e-5)
    error = divergence(logits.log_softmax(dim=-1), read)
    assert float(error.max()) < 1e-6
    with pytest.raises(Refused, match="vocabulary of 5001"):
        LogitReader(tmp_path / "kept", 12, 5001)


def test_divergence_is_scipys() -> None:
    from scipy.special import rel_entr

    torch.manual_seed(2)
    p, q = torch.randn(2, 7, 300).double().log_softmax(dim=-1)
    expected = rel_entr(p.exp().numpy(), q.exp().numpy()).sum(axis=-1)
    assert numpy.allclose(divergence(p, q).numpy(), expected)
    certain = torch.tensor([[0.0, -math.inf]])
    halves = torch.tensor([[0.5, 0.5]]).log()
    assert float(divergence(certain, halves)) == pytest.approx(math.log(2))


# ------------------------------------------------------------ a model's logits


class Capped(torch.nn.Module):  # type: ignore[misc]  # torch is not analysed
    """A model that does more after its last layer, as Gemma 2 does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny_llama()
        self.inner.lm_head.weight.data *= 8
        self.base_model, self.config = self.inner.base_model, self.inner.config

    def get_output_embeddings(self) -> Any:
        return self.inner.get_output_embeddings()

    def forward(self, **given: Any) -> Any:
        output = self.inner(**given)
        output.logits = torch.tanh(output.logits / 2) * 2
        return output


def in_worker(model: Any) -> Any:
    command = LoadModel("transformers", "a folder", {}, device="cpu")
    return SimpleNamespace(model=model, input_device=torch.device("cpu"), command=command)


@pytest.mark.parametrize("model", [tiny_llama, Capped])
def test_logits_in_blocks_are_the_models_own(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "BLOCK_LOGITS", 7 * VOCABULARY)
    ids = [n * 31 % VOCABULARY for n in range(50)]
    one = model()
    with torch.no_grad():
        whole = one(input_ids=torch.tensor([ids])).logits[0]
    forecast = Forecast(in_worker(one), ids)
    blocks = list(forecast.logits(ids, 20))
    assert [len(block) for block in blocks] == [7, 7, 7, 7, 2]
    assert torch.allclose(torch.cat(blocks), whole[20:], atol=1e-5)
    assert forecast.vocabulary == VOCABULARY


def test_a_model_that_says_what_is_no_number_is_refused() -> None:
    broken = tiny_llama()
    broken.lm_head.weight.data[3] = math.nan
    with pytest.raises(Refused, match="not numbers"):
        list(Forecast(in_worker(broken), [1, 2, 3]).logits([1, 2, 3], 0))


# ------------------------------------------------------------ the jobs, on a tiny real model


def reading(folder: Path, output: Path, **more: Any) -> ScoreJob:
    text = output / "text"
    text.write_text(TEXT, encoding="utf-8")
    return ScoreJob(
        load=LoadModel("transformers", str(folder), {}, device="cpu"),
        text=str(text),
        workspace=Workspace(str(output), str(output)),
        **{"window": 64, "stride": 64, "copies": 1, **more},
    )


def cross_entropy(folder: Path, ids: list[int], windows: Windows) -> float:
    """transformers' own loss, over the same tokens."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    losses = []
    for start in windows.starts(len(ids)):
        window = torch.tensor([ids[start : start + windows.window]])
        labels = window.clone()
        labels[0, : windows.context] = -100
        with torch.no_grad():
            losses.append(float(model(input_ids=window, labels=labels).loss))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("window", "stride"), [(64, 64), (64, 16)])
def test_perplexity_is_transformers_cross_entropy(tmp_path: Path, window: int, stride: int) -> None:
    folder = tiny_folder(tmp_path / "model")
    asked = reading(folder, tmp_path, window=window, stride=stride)
    result = score.run(asked, told)
    ids = tokenizer()(TEXT)["input_ids"]
    assert result.tokens == len(ids) == len(TEXT)
    expected = cross_entropy(folder, ids, Windows(window, stride))
    found = read(tmp_path, "nll").mean()
    assert found == pytest.approx(expected, abs=1e-5)
    assert math.log(2) < found < math.log(1e6)
    assert result.begin == ""
    assert result.vocabulary == VOCABULARY


def test_a_bos_is_put_before_each_window(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", begins=True)
    result = score.run(reading(folder, tmp_path), told)
    assert result.begin == BEGIN
    assert result.tokens == len(TEXT) + 1
    ids = [len(LETTERS), *tokenizer()(TEXT)["input_ids"]]
    for start in range(0, len(ids), 64):
        ids[start] = len(LETTERS)
    expected = cross_entropy(folder, ids, Windows(64, 64))
    assert read(tmp_path, "nll").mean() == pytest.approx(expected, abs=1e-5)


def read(folder: Path, name: str) -> Any:
    return numpy.fromfile(folder / name)


def test_one_model_is_compared_with_another_that_read_before(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    base = tiny_folder(tmp_path / "base")
    other = tiny_folder(tmp_path / "other", scale=4.0)
    before = score.run(reading(base, first, keep="ref"), told)
    asked = reading(other, second, against={"ref": str(first / "ref")})
    score.run(replace(asked, ids_sha256=before.ids_sha256), told)

    positions = before.positions
    assert positions == len(Windows(64, 64).starts(len(TEXT))) * (64 - 33)
    nll, forward, backward = (read(second, n) for n in ("nll", "ref.forward", "ref.backward"))
    assert len(read(first, "nll")) == len(nll) == len(forward) == len(backward) == positions

    # The same, from transformers alone.
    from transformers import AutoModelForCausalLM

    ids = tokenizer()(TEXT)["input_ids"][:64]
    p, q = (
        AutoModelForCausalLM.from_pretrained(path)(input_ids=torch.tensor([ids]))
        .logits[0, 32:63]
        .detach()
        .log_softmax(dim=-1)
        for path in (base, other)
    )
    assert numpy.allclose(forward[:31], (p.exp() * (p - q)).sum(dim=-1), atol=1e-4)
    assert numpy.allclose(backward[:31], (q.exp() * (q - p)).sum(dim=-1), atol=1e-4)
    assert numpy.allclose(nll[:31], [-float(q[i, ids[33 + i]]) for i in range(31)], atol=1e-5)
    assert (read(second, "top")[:31] == q.argmax(dim=-1).numpy()).all()
    assert forward.mean() > 0.01
    assert read(first, "kept").max() < 1e-5  # what keeping it cost


def test_a_perplexity_beyond_numbers_fails_the_model_alone(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", scale=1e6)
    with pytest.raises(Refused, match=r"is too large: e\^\d+"):
        score.run(reading(folder, tmp_path), told)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    with pytest.raises(Refused, match="into other tokens"):
        score.run(reading(folder, tmp_path, ids_sha256="0" * 64), told)


def test_a_full_disk_is_told_before_anything_is_read(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    with pytest.raises(Refused, match="disk is too full") as caught:
        score.run(reading(folder, tmp_path, keep="ref", copies=2**40), told)
    assert caught.value.failure.kind == "no_space"
    assert not (tmp_path / "ref").exists()


def test_a_model_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        score.run(reading(tmp_path / "nowhere", tmp_path), told)
    assert caught.value.failure.kind == "bad_checkpoint"
