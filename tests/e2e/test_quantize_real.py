"""`quantchat quantize` on a tiny model: stop, resume, and load the result in each library."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from fakes.hub_folder import as_in_hub_cache
from fakes.tiny_adapter import adapter_in
from fakes.tiny_folder import tiny_folder
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.cache import CheckpointCache, State, read_built
from quantchat.engines.gptq import Gptq
from quantchat.engines.quantize import Quantize
from quantchat.wire.messages import Progress

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]

TINY = "models--org--tiny/snapshots/abc"
IDS = list(range(5, 60))
SCRIPT = Path(__file__).with_name("logits_of.py")
QUANTIZE = Quantize(bits=4, group_size=32, samples=8, sample_tokens=32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model, as a hub's cache has it, a text to calibrate on, and caches."""
    place = tmp_path_factory.mktemp("quantize")
    # Widths that are multiples of 64, the block of bitsandbytes' kernels.
    as_in_hub_cache(tiny_folder(place / TINY, dtype="bfloat16", intermediate_size=128))
    (place / "text.txt").write_text("It was a dark and stormy night; the rain fell. " * 40)
    return place


@pytest.fixture(autouse=True)
def folders(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_CACHE", str(place / "cache"))
    monkeypatch.setenv("QUANTCHAT_LOGS", str(place / "logs"))


def quantize(place: Path, name: str, *options: str) -> dict[str, Any]:
    """Run the command; return what it prints as JSON."""
    command = [sys.executable, "-m", "quantchat", "quantize", str(place / TINY), "--json"]
    command += ["-o", str(place / name), "--calibration", str(place / "text.txt")]
    command += ["--samples", "8", "--sample-tokens", "32", *options]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout)
    assert told["folder"] == str(place / name)
    return told


def logits(python: Path | str, *named: tuple[str, Path]) -> list[Any]:
    """What each library says of its folder after each of IDS, in one process of `python`."""
    read, write = os.pipe()
    words = [str(word) for pair in named for word in pair]
    command = [str(python), str(SCRIPT), json.dumps(IDS), *words]
    script = 'exec "$@" 3>&' + str(write)
    run = subprocess.Popen(
        ["/bin/bash", "-c", script, "bash", *command],
        pass_fds=[write],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "GPTQMODEL_CPU_WORKERS": "2", "HF_HUB_OFFLINE": "1"},
    )
    os.close(write)
    with os.fdopen(read) as output:
        told = output.read()
    said, _ = run.communicate()
    assert run.returncode == 0, said[-3000:]
    return [numpy.array(one) for one in json.loads(told)]


async def stop_in_layer_3(place: Path) -> None:
    calibrated = QUANTIZE.model_copy(update={"calibration": str(place / "text.txt")})
    model = str(place / TINY)
    spec = Gptq(label="x", engine="gptq", model=model, quantize=calibrated)
    begun = asyncio.Event()

    def heard(progress: Progress) -> None:
        if progress.stage == "quantizing layer" and progress.done == 3:
            begun.set()

    making = asyncio.ensure_future(CheckpointBuilder(threads=1).prepare(spec, heard))
    waiting = asyncio.ensure_future(begun.wait())
    await asyncio.wait({making, waiting}, return_when=asyncio.FIRST_COMPLETED)
    making.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await making
    assert begun.is_set()
    assert making.cancelled()


async def test_what_was_stopped_goes_on_and_loads_in_each_library(
    place: Path, auto_gptq_python: Path
) -> None:
    await stop_in_layer_3(place)
    cache = CheckpointCache(place / "cache" / "checkpoints")
    assert State.UNFINISHED in [entry.state for entry in cache.entries()]
    told = quantize(place, "gptq", "--bits", "4", "--group-size", "32")
    assert {entry.state for entry in cache.entries()} == {State.WHOLE}
    folder = place / "gptq"
    made = read_built(folder)
    assert made
    assert made.result["resumed"] == 2  # counted from 0: two layers were finished before
    assert len(told["losses"]) == 3 * 7

    # What it came to.
    before, after = told["before"], told["after"]
    assert after["bytes"] < before["bytes"]
    assert 1 < before["perplexity"]["value"] < after["perplexity"]["value"] * 1.5
    assert before["perplexity"]["positions"] == after["perplexity"]["positions"] > 20
    calibration = (folder / "calibration.jsonl").read_bytes()
    assert made.files["calibration.jsonl"].sha256 == told["calibration"]["sha256"]
    assert calibration.count(b"\n") == told["calibration"]["samples"] == 8
    assert told["calibration"]["widest"] == 128

    # The same numbers wherever it is loaded, but for the rounding of each one's kernels, which is
    # small beside what quantizing lost; and near to the base's.
    base, theirs = logits(sys.executable, ("transformers", place / TINY), ("transformers", folder))
    (ours,) = logits(sys.executable, ("gptqmodel", folder))
    (older,) = logits(auto_gptq_python, ("auto-gptq", folder))
    lost = abs(ours - base).mean()
    assert 0.01 * base.std() < lost < 0.3 * base.std()
    assert abs(theirs - ours).mean() < 0.1 * lost
    assert abs(older - ours).mean() < 0.1 * lost


def test_an_adapter_is_merged_before_quantizing(place: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = adapter_in(place / "lora", intermediate_size=128)
    options = ("--bits", "4", "--group-size", "32", "--no-perplexity")
    quantize(place, "merged-gptq", *options, "--adapter", str(adapter))
    made = read_built(place / "merged-gptq")
    assert made and len(made.result["adapter"]["sha256"]) == 64

    # Merged by PEFT alone, and not quantized: 4 bits are near to it, and far from the base.
    base = AutoModelForCausalLM.from_pretrained(place / TINY, dtype="bfloat16")
    before = base(torch.tensor([IDS])).logits[0].detach().float().numpy()
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    expected = merged(torch.tensor([IDS])).logits[0].detach().float().numpy()
    (found,) = logits(sys.executable, ("gptqmodel", place / "merged-gptq"))
    assert abs(found - expected).mean() < 0.3 * abs(expected - before).mean()


def test_a_bitsandbytes_checkpoint_loads_again_as_it_was(place: Path) -> None:
    told = quantize(place, "nf4", "--method", "nf4", "--no-perplexity")
    assert told["before"]["perplexity"] is None
    assert told["after"]["bytes"] < told["before"]["bytes"]
    config = json.loads((place / "nf4" / "config.json").read_text())["quantization_config"]
    assert config["bnb_4bit_quant_type"] == "nf4"
    assert config["bnb_4bit_use_double_quant"] is True
    # What is quantized on loading says the very same.
    saved, fresh = logits(
        sys.executable, ("bitsandbytes", place / "nf4"), ("bitsandbytes, on loading", place / TINY)
    )
    assert abs(saved - fresh).max() == 0
