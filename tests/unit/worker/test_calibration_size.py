"""The default calibration size: enough tokens for the widest layer, on a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3Config, GPT2Config

from fakes.tiny_folder import tiny_folder, tokenizer
from fakes.tiny_llama import tiny_llama
from quantchat.common.calibration_text import read
from quantchat.wire.jobs import CalibrateJob, CollectSamplesJob, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.worker.jobs import calibrate, collect
from quantchat.worker.jobs.calibration_size import (
    TOKENS_PER_INPUT,
    CalibrationSize,
    calibration_size,
)
from quantchat.worker.jobs.layer_widths import widest, widest_of


def test_on_a_gpu_it_is_the_model_that_says_how_much() -> None:
    assert calibration_size(None, None, "cuda:0", 11008) == CalibrationSize(32, 4 * 11008, 512)
    assert calibration_size(None, None, "cuda:0", 11008).full_samples == 86
    assert calibration_size(None, None, "cpu", 11008) == CalibrationSize(32, 0, 160)
    # A number that the user gives holds.
    assert calibration_size(7, None, "cuda:1", 11008) == CalibrationSize(7, 0, 512)
    assert calibration_size(None, 64, "cuda:1", 100) == CalibrationSize(32, 400, 64)
    assert calibration_size(128, 64, "cpu", 100) == CalibrationSize(128, 0, 64)


def test_the_width_of_a_model_that_is_not_loaded() -> None:
    assert widest_of(tiny_llama().config) == widest(tiny_llama()) == 96
    assert widest_of(GPT2Config(n_embd=64)) == 256  # which leaves its MLP's width unsaid
    assert widest_of(Gemma3Config(text_config={"intermediate_size": 777})) == 2304  # Gemma's own
    assert widest_of(Gemma3Config(text_config={"intermediate_size": 7777})) == 7777


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have as much wanted as on a GPU, here."""
    for job in (calibrate, collect):
        monkeypatch.setattr(job, "prepare_process", lambda workspace: None)
        monkeypatch.setattr(
            job,
            "calibration_size",
            lambda samples, tokens, _, inputs: calibration_size(samples, tokens, "cuda:0", inputs),
        )


def place(folder: Path) -> Workspace:
    (folder / "output").mkdir(exist_ok=True)
    return Workspace(scratch=str(folder), output=str(folder / "output"))


def chats(folder: Path, prompts: list[str], **more: Any) -> CalibrateJob:
    load = LoadModel("transformers", str(folder / "model"), more.pop("options", {}), device="cpu")
    sizes = {"samples": None, "sample_tokens": None}
    return CalibrateJob(load=load, prompts=prompts, seed=0, workspace=place(folder), **sizes | more)


def test_the_model_goes_on_until_it_has_said_enough(tmp_path: Path, on_gpu: None) -> None:
    tiny_folder(tmp_path / "model", intermediate_size=512, max_position_embeddings=4096)
    cutter = tokenizer()
    cutter.pad_token = cutter.bos_token
    cutter.save_pretrained(tmp_path / "model")
    prompts = [f"Tell me {count} things." for count in range(20)]
    told: list[tuple[int, int, str]] = []
    asked = chats(tmp_path, prompts, sample_tokens=50)
    result = calibrate.run(asked, lambda *step: told.append(step))
    lines = (tmp_path / "output" / "chats.jsonl").read_text().splitlines()
    assert result.samples == len(lines) == len(set(lines))
    written = [json.loads(line)["text"].partition(" things.")[2] for line in lines]
    tokens = sum(map(len, written))  # a letter each, and this decoder puts blanks between
    assert TOKENS_PER_INPUT * 512 <= tokens < TOKENS_PER_INPUT * 512 + 2 * 50 * calibrate.BATCH
    assert len(lines) > len(prompts)  # some were answered twice
    assert told[-1][1] == TOKENS_PER_INPUT * 512
    assert told[-1][2].endswith("chats")
    # A number that is given is kept to.
    few = calibrate.run(chats(tmp_path, prompts, samples=3, sample_tokens=50), silent)
    assert few.samples == 3


def test_the_model_is_asked_as_the_variant_tells_its_template(tmp_path: Path, on_gpu: None) -> None:
    tiny_folder(tmp_path / "model")
    cutter = tokenizer()
    cutter.pad_token = cutter.bos_token
    cutter.chat_template = "{{ messages[0].content }}{% if think %} Think.{% endif %}"
    cutter.save_pretrained(tmp_path / "model")
    answers = []
    for options in ({}, {"chat_template_kwargs": {"think": True}}):
        asked = chats(tmp_path, ["Why?"], samples=1, sample_tokens=8, options=options)
        calibrate.run(asked, silent)
        (line,) = (tmp_path / "output" / "chats.jsonl").read_text().splitlines()
        answers.append(json.loads(line)["messages"][1]["content"])
    assert answers[0] != answers[1]


def silent(_done: int, _total: int, _detail: str) -> None:
    pass


def test_of_a_text_as_much_is_taken(tmp_path: Path, on_gpu: None) -> None:
    (tmp_path / "model").mkdir()
    tokenizer().save_pretrained(tmp_path / "model")
    tiny_llama(intermediate_size=2560).config.save_pretrained(tmp_path / "model")
    file = tmp_path / "text.txt"
    file.write_text("word" * 64 * 128)  # 64 pieces of 512 letters
    job = CollectSamplesJob(
        load=LoadModel("transformers", str(tmp_path / "model"), {}, device="cpu"),
        part="calibration",
        samples=None,
        held_out=4,
        sample_tokens=None,
        seed=0,
        workspace=place(tmp_path),
        file=str(file),
        sha256=read(file)[1],
    )
    result = collect.run(job, silent)
    assert result.samples == 32  # of 512 tokens, which is more than the width asks for
    assert result.length == 512
    tiny_llama(intermediate_size=5120).config.save_pretrained(tmp_path / "model")
    assert collect.run(job, silent).samples == TOKENS_PER_INPUT * 5120 // 512


class Small(calibrate._Author):
    """A device that has room for three prompts at once."""

    def __init__(self) -> None:
        self._batch_size = 1000
        self.tried: list[int] = []
        self.room = 3

    def _answered(self, prompts: list[str], sampled: bool, tell: Any) -> dict[str, int]:
        self.tried.append(len(prompts))
        if len(prompts) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        tell(len(prompts))
        return dict.fromkeys(prompts, 1)


def test_where_memory_is_short_fewer_are_asked_at_once() -> None:
    author, told = Small(), list[int]()
    prompts = [str(number) for number in range(10)]
    assert author.answer(prompts, False, told.append) == dict.fromkeys(prompts, 1)
    assert author.tried == [10, 5, 2, 2, 2, 2, 2]
    assert told == [2, 4, 6, 8, 10]
    author.tried.clear()
    author.answer(prompts[:4], True, told.append)
    assert author.tried == [2, 2]  # it is not tried again
    author.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        author.answer(prompts, False, told.append)
