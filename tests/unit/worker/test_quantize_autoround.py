"""The job that quantizes with AutoRound: what the library gets, and the checkpoint that is left."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fakes.tiny_folder import tiny_folder
from quantchat.wire.jobs import (
    AutoRoundSettings,
    QuantizeAutoRoundJob,
    QuantizeGptqResult,
    Workspace,
)
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.jobs.quantize_autoround import equal_rows, run

SETTINGS = AutoRoundSettings(bits=4, group_size=32, sym=True, iters=2)
TEXTS = ("one two three four", "five six", "seven eight nine ten eleven")


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=20), min_size=1, max_size=20))
def test_rows_are_equally_long_and_in_order(chats: list[list[int]]) -> None:
    rows = equal_rows(chats)
    (length,) = {len(row) for row in rows}
    joined = [token for chat in chats for token in chat]
    kept = [token for row in rows for token in row]
    assert kept == joined[: len(kept)]
    assert 0 <= len(joined) - len(kept) < length
    assert len(rows) >= len(chats)


def test_an_empty_calibration_set_is_refused() -> None:
    with pytest.raises(Refused, match="the calibration set is empty"):
        equal_rows([[]])


Steps = list[tuple[int, int, str]]


def made(folder: Path, steps: Steps, **more: Any) -> QuantizeGptqResult:
    """Run the job on a tiny model, and return to the current folder."""
    source = tiny_folder(folder / "source", hidden_size=128, intermediate_size=256)
    calibration = folder / "chats.jsonl"
    calibration.write_text("".join(json.dumps({"text": one}) + "\n" for one in TEXTS))
    for name in ("scratch", "out"):
        (folder / name).mkdir()
    workspace = Workspace(str(folder / "scratch"), str(folder / "out"))
    load = LoadModel("transformers", str(source), {}, device="cpu", dtype="bfloat16")
    job = QuantizeAutoRoundJob(load, SETTINGS, str(calibration), workspace, **more)
    before = Path.cwd()
    try:
        return run(job, lambda *step: steps.append(step))
    finally:
        os.chdir(before)


class FakeAutoRound:
    """Writes a checkpoint as auto-round does: into a subfolder, in float32, and logs each block."""

    asked: dict[str, Any]
    kind: dict[str, str]

    def __init__(self, model: Any, tokenizer: Any, **asked: Any) -> None:
        FakeAutoRound.asked = asked

    def quantize_and_save(self, folder: str, **kind: str) -> tuple[None, str]:
        FakeAutoRound.kind = kind
        for block in range(2):
            logging.getLogger("autoround").warning(
                "quantized 7/7 layers in the block, loss iter 0: 4.3e-08 -> iter %d: 1e-09", block
            )
        to = Path(folder) / "source-w4g32"
        to.mkdir(parents=True)
        weights = {"norm": torch.ones(4), "scales": torch.ones(4, dtype=torch.float16)}
        save_file(weights, to / "model.safetensors", {"format": "pt"})
        (to / "config.json").write_text('{"dtype": "float32", "rope_parameters": null}')
        return None, str(to)


def test_the_library_gets_rows_and_the_checkpoint_is_as_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = ModuleType("auto_round")
    module.AutoRound = FakeAutoRound
    monkeypatch.setitem(sys.modules, "auto_round", module)
    monkeypatch.setattr(os, "nice", lambda more: 0)
    steps: Steps = []
    result = made(tmp_path, steps)
    asked = FakeAutoRound.asked
    assert FakeAutoRound.kind == {"format": "auto_gptq"}
    assert (asked["bits"], asked["group_size"], asked["iters"]) == (4, 32, 2)
    assert {tuple(row.shape) for row in asked["dataset"]} == {(1, asked["seqlen"])}
    assert asked["nsamples"] == len(asked["dataset"]) >= len(TEXTS)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert (stored["norm"].dtype, stored["scales"].dtype) == (torch.bfloat16, torch.float16)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert (tmp_path / "out" / "calibration.jsonl").read_bytes()
    assert result.calibration.samples == len(TEXTS)
    assert result.calibration.tokens == asked["nsamples"] * asked["seqlen"]
    told = [(done, detail) for done, total, detail in steps if total and "left" in detail]
    assert [done for done, _ in told] == [1, 2]
    assert told[0][1].endswith("left · loss 4.3e-08 → 1e-09")


@pytest.mark.parametrize("form", ["auto_gptq", "auto_awq"])
def test_auto_round_makes_a_checkpoint_that_gptqmodel_could_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    pytest.importorskip("auto_round", reason="auto-round is not installed")
    monkeypatch.setattr(os, "nice", lambda more: 0)
    steps: Steps = []
    result = made(tmp_path, steps, format=form)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == form.removeprefix("auto_")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert any(name.endswith(".qweight") for name in stored)
    assert not any(tensor.dtype == torch.float32 for tensor in stored.values())
    assert max(done for done, total, detail in steps if "left" in detail) == result.layers
