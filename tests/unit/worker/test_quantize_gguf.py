"""The job that makes a GGUF file with AutoRound: what the library gets, and what is left."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fakes.byte_tokenizer import TOKENS, byte_folder, byte_tokenizer
from fakes.tiny_folder import tiny_folder
from quantchat.wire.jobs import GgufSettings, QuantizeGgufJob, QuantizeGptqResult, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import quantize_gguf
from quantchat.worker.jobs.quantize_gguf import check_converter

Steps = list[tuple[int, int, str]]


def made(folder: Path, source: Path, steps: Steps, **options: Any) -> QuantizeGptqResult:
    """Run the job on the model in `source`, and return to the current folder."""
    calibration = folder / "chats.jsonl"
    calibration.write_text('{"text": "one two three four"}\n{"text": "five six"}\n')
    for name in ("scratch", "out"):
        (folder / name).mkdir()
    workspace = Workspace(str(folder / "scratch"), str(folder / "out"))
    load = LoadModel("transformers", str(source), options, device="cpu", dtype="bfloat16")
    job = QuantizeGgufJob(load, GgufSettings("q4_k_m", 3), str(calibration), workspace)
    before = Path.cwd()
    try:
        return quantize_gguf.run(job, lambda *step: steps.append(step))
    finally:
        os.chdir(before)


class FakeAutoRound:
    """Writes a file as auto-round does, and logs the tensors of each block."""

    asked: dict[str, Any]
    model: Path

    def __init__(self, model: Any, tokenizer: Any, **asked: Any) -> None:
        FakeAutoRound.asked = asked
        FakeAutoRound.model = Path(model.name_or_path)

    def quantize_and_save(self, folder: str, **kind: str) -> tuple[None, str]:
        FakeAutoRound.asked |= kind
        log = logging.getLogger("autoround")
        for block in range(2):
            for name in ("attn_q", "attn_k"):
                log.warning(
                    f"blk.{block}.{name}.weight,  torch.bfloat16 --> Q4_K, shape = {{4, 4}}"
                )
        to = Path(folder) / "source-gguf"
        to.mkdir(parents=True)
        (to / "source-98K-Q4_K_M.gguf").write_bytes(b"GGUF")
        return None, str(to)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("auto_round")
    module.AutoRound = FakeAutoRound
    monkeypatch.setitem(sys.modules, "auto_round", module)
    monkeypatch.setattr(os, "nice", lambda more: 0)
    monkeypatch.setattr(quantize_gguf, "check_converter", lambda folder: None)
    monkeypatch.setenv("AUTO_ROUND_GGUF_AUTO_UPDATE", "1")


@pytest.mark.usefixtures("fake")
def test_the_library_gets_the_format_and_the_folder_only_the_file(tmp_path: Path) -> None:
    steps: Steps = []
    result = made(tmp_path, tiny_folder(tmp_path / "source"), steps)
    asked = FakeAutoRound.asked
    assert (asked["format"], asked["iters"]) == ("gguf:q4_k_m", 3)
    assert not {"bits", "group_size", "sym"} & asked.keys()
    assert os.environ["AUTO_ROUND_GGUF_AUTO_UPDATE"] == "0"
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["calibration.jsonl", "model-Q4_K_M.gguf"]
    assert result.calibration.samples == 2
    assert [done for done, total, detail in steps if total and "left" in detail] == [1, 2]


@pytest.mark.usefixtures("fake")
def test_the_converter_reads_the_tokenizer_of_another_model(tmp_path: Path) -> None:
    source = tiny_folder(tmp_path / "source", vocab_size=len(TOKENS))
    byte_tokenizer().save_pretrained(tmp_path / "other")
    made(tmp_path, source, [], tokenizer=str(tmp_path / "other"))
    assert FakeAutoRound.model != source
    described = json.loads((FakeAutoRound.model / "tokenizer.json").read_text())
    assert described["model"]["type"] == "BPE"
    assert (FakeAutoRound.model / "config.json").samefile(source / "config.json")
    assert (FakeAutoRound.model / "model.safetensors").samefile(source / "model.safetensors")


def test_a_tokenizer_that_the_converter_does_not_know_is_refused(tmp_path: Path) -> None:
    for module in ("auto_round", "sentencepiece"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    check_converter(str(byte_folder(tmp_path / "known")))
    with pytest.raises(Refused, match="cannot write this model as GGUF: NotImplementedError"):
        check_converter(str(tiny_folder(tmp_path / "unknown")))
    config = tmp_path / "known" / "config.json"
    body = json.loads(config.read_text()) | {"architectures": ["NewForCausalLM"]}
    config.write_text(json.dumps(body))
    with pytest.raises(Refused, match="Model NewForCausalLM is not supported") as refused:
        check_converter(str(tmp_path / "known"))
    assert "\n" not in str(refused.value)
