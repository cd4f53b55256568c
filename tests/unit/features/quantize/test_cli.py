"""`quantchat quantize`: its arguments, the resulting request, and its output."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import shutil
import sys
from array import array
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fakes.model_folder import LLAMA_2_7B, llama_tensors, write_model
from fakes.scripted_jobs import Jobs
from quantchat.checkpoints import export
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.cli import main
from quantchat.engines.gptq import Gptq
from quantchat.engines.quantize import Quantize, QuantizeAutoRound, QuantizeGguf
from quantchat.errors import UserError
from quantchat.features.quantize import outcome
from quantchat.features.quantize.cli import _METHOD_ONLY
from quantchat.host.job_runner import run_job
from quantchat.profile.load import loads
from quantchat.wire.jobs import (
    CalibrateResult,
    CalibrationUsed,
    ModuleLoss,
    QuantizeGptqResult,
)
from quantchat.wire.messages import Failed

Capture = pytest.CaptureFixture[str]
LOSSES = [
    ModuleLoss(0, "mlp.down_proj", 0.5),
    ModuleLoss(1, "mlp.up_proj", 0.25),
    ModuleLoss(1, "mlp.down_proj", None),
]
CALIBRATION = CalibrationUsed(samples=32, tokens=5000, sha256="ab" * 32, widest=0)
QUANTIZED = QuantizeGptqResult(layers=2, losses=LOSSES, calibration=CALIBRATION, resumed=0)


@pytest.fixture
def jobs(tmp_path: Path, own_folders: None, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Scripted workers, and a model in `tmp_path/model`."""
    jobs = Jobs(tmp_path)
    jobs.results["quantize gptq"] = QUANTIZED
    builder = CheckpointBuilder(jobs.start, tmp_path / "made")
    for name, more in (("make", {}), ("judge", {"start": jobs.start})):
        scripted = functools.partial(getattr(outcome, name), builder=builder, **more)
        monkeypatch.setattr(outcome, name, scripted)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return jobs


def test_from_the_model_to_a_folder(tmp_path: Path, jobs: Jobs, capsys: Capture) -> None:
    assert main(["quantize", "model", "-o", "out", "--bits", "3", "--act-order"]) == 0
    assert jobs.names() == [
        "calibrate",
        "quantize gptq",
        "calibrate",  # what is held out
        "score",
        "score",
    ]
    job = dict(jobs.begun)["quantize gptq"]
    assert job.load.model == str(tmp_path / "model")
    asked = job.settings
    assert (asked.bits, asked.desc_act, asked.act_group_aware) == (3, True, False)
    read = [job for name, job in jobs.begun if name == "score"]
    assert [one.load.engine for one in read] == ["transformers", "gptq"]
    assert {one.window for one in read} == {512}
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"int4" * 16
    assert not list(tmp_path.glob(".out*"))
    said = capsys.readouterr()
    assert said.out.count("12.18 ±0.27") == 2  # exp 2.5, with the error of 510 tokens
    assert "layers.0.mlp.down_proj" in said.out
    assert "1 modules were only rounded" in said.out
    assert "calibrated on 32 samples, 5000 tokens" in said.out
    assert "the checkpoint is in out" in said.out
    assert "quantizing layer 1 of 2: half" in said.err
    assert said.err.count("writing calibration chats 1 of 2") == 1
    assert said.err.count("writing held-out chats 1 of 2") == 1

    # The second time all is found; a folder that is taken is left alone.
    assert main(["quantize", "model", "-o", "out", "--bits", "3", "--act-order"]) == 2
    assert "out: already exists" in capsys.readouterr().err
    assert main(["quantize", "model", "--bits", "3", "--act-order", "--no-perplexity"]) == 0
    assert len(jobs.begun) == 5
    assert "made/model-gptq-3bit-g128-" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["gptq", "nf4"])
def test_an_adapter_is_merged_first(
    tmp_path: Path, jobs: Jobs, capsys: Capture, method: str
) -> None:
    (tmp_path / "lora").mkdir()
    assert main(["quantize", "model", "--adapter", "lora", "-o", "out", "--method", method]) == 0
    (merge, given), *rest = jobs.begun
    assert merge == "merge adapter"
    assert (given.load.model, given.adapter) == (str(tmp_path / "model"), str(tmp_path / "lora"))
    # All that comes after knows the merged model alone: its chats, and its perplexity before.
    assert [name for name, _ in rest].count("score") == 2
    for name, job in rest:
        assert Path(job.load.model).name.startswith("model-with-lora-"), name
        assert "adapter" not in job.load.options
    made = json.loads((tmp_path / "out" / "made.json").read_text())
    expected = {"name": "lora", "kind": "LoRA r8 on q_proj", "sha256": "cd" * 32}
    assert made["result"]["adapter"] == expected
    assert "lora is merged (LoRA r8 on q_proj)" in capsys.readouterr().out.replace("\n", " ")


def test_variables_of_the_chat_template(tmp_path: Path, jobs: Jobs, capsys: Capture) -> None:
    given: dict[str, object] = {"enable_thinking": False}
    used = replace(CALIBRATION, chat_template_kwargs=given)
    jobs.results["quantize gptq"] = replace(QUANTIZED, calibration=used)
    command = ["quantize", "model", "--chat-template-kwargs", json.dumps(given), "-o", "out"]
    assert main(command) == 0
    asked = [job.load.options for name, job in jobs.begun if name != "score"]
    assert [options["chat_template_kwargs"] for options in asked] == [given] * 3
    made = json.loads((tmp_path / "out" / "made.json").read_text())
    assert made["inputs"]["chat_template_kwargs"] == given
    assert 'chat_template_kwargs {"enable_thinking": false}' in capsys.readouterr().out


def test_a_tokenizer_is_lent_to_all_that_is_made(tmp_path: Path, jobs: Jobs) -> None:
    (tmp_path / "chat").mkdir()
    assert main(["quantize", "model", "--tokenizer", "chat"]) == 0
    asked = [job.load.options for _, job in jobs.begun]
    assert [one["tokenizer"] for one in asked] == [str(tmp_path / "chat")] * 5


def test_bitsandbytes(tmp_path: Path, jobs: Jobs, capsys: Capture) -> None:
    assert main(["quantize", "./model", "--method", "fp4", "--no-double-quant", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert jobs.names()[0] == "quantize bitsandbytes"
    assert jobs.begun[0][1].load.options["double_quant"] is False
    assert jobs.begun[-1][1].load.options["quant_type"] == "fp4"
    assert told["after"]["perplexity"]["value"] == pytest.approx(math.exp(2.5))
    assert told["after"]["perplexity"]["positions"] == 510
    assert told["losses"] == []
    assert told["parameters"] is None  # there is no weight file to tell


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["no where"], "MODEL: must be a folder, which begins with ./"),
        (["./nowhere"], "./nowhere: no such folder"),
        (["demo:other"], "MODEL: the only model of this kind"),
        (["model", "--bits", "5"], "--bits"),
        (["model", "--group-size", "0"], "--group-size: must be -1"),
        (["model", "--adapter", "no where"], "--adapter: must be a folder, which begins with ./"),
        (["model", "--tokenizer", "no where"], "--tokenizer: must be a folder, which begins"),
        (["model", "--tokenizer", "./nowhere"], "cannot be read: No such file"),
        (["model", "--damp", "1"], "--damp: 1.0 is out of range"),
        (["model", "--samples", "0"], "--samples: 0 is out of range"),
        (["model", "--device", "gpu"], '--device: "gpu" does not have the required form'),
        (["model", "--method", "nf4", "--bits", "4"], "--bits: cannot be used with --method nf4"),
        (
            ["model", "--method", "awq", "--act-order"],
            "--act-order: cannot be used with --method awq",
        ),
        (["model", "--format", "auto_awq"], "--format: cannot be used with --method gptq"),
        (
            ["model", "--method", "autoround", "--format", "q4_k_m"],
            "--format q4_k_m needs --method autoround-gguf",
        ),
        (["model", "--no-double-quant"], "--no-double-quant needs --method nf4"),
        (["model", "--calibration", "gone.txt"], "cannot read the calibration: No such file"),
        (["model", "--calibration", "a", "--calibration-dataset", "b"], "both name a text"),
        (["model", "--calibration-dataset", "a:b:c:d"], "hub:org/name[:split[:column]]"),
        (["model", "--chat-template-kwargs", "[1]"], "needs a JSON object"),
        (["model", "--chat-template-kwargs", "{a: 1}"], "needs a JSON object"),
        (["model", "--chat-template-kwargs", '{"a": []}'], "--chat-template-kwargs: "),
        (["model", "-o", "model"], "model: already exists"),
        (["model", "-o", "model/config.json"], "already exists"),
    ],
)
def test_what_it_cannot_be_asked(
    jobs: Jobs, capsys: Capture, options: list[str], complaint: str
) -> None:
    assert main(["quantize", *options]) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1
    assert jobs.begun == []


def test_every_setting_has_its_option() -> None:
    elsewhere = {"calibration", "samples", "sample_tokens", "seed"}
    settings = {*Quantize.model_fields, *QuantizeAutoRound.model_fields, *QuantizeGguf.model_fields}
    assert set(_METHOD_ONLY) == settings - elsewhere


def test_what_fails_is_one_line(jobs: Jobs, tmp_path: Path, capsys: Capture) -> None:
    jobs.fails["quantize gptq"] = Failed("unsupported", "128 does not divide 96", "use 32")
    assert main(["quantize", "model", "-o", "out"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("quantchat: 128 does not divide 96 (use 32; look at the worker's log")
    assert not (tmp_path / "out").exists()


def test_stopping_says_that_it_goes_on(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupt(task: Any) -> None:
        task.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio, "run", interrupt)
    assert main(["quantize", "model"]) == 130
    assert "the same command continues from here" in capsys.readouterr().err


FULL = Failed("out_of_memory", "out of memory: 2,000 MiB more were needed", "try fewer bits")


@pytest.mark.parametrize("method", ["gptq", "nf4"])
def test_a_perplexity_that_fails_costs_no_checkpoint(
    tmp_path: Path, jobs: Jobs, capsys: Capture, method: str
) -> None:
    jobs.fails["score"] = FULL
    assert main(["quantize", "model", "-o", "out", "--method", method]) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()
    said = capsys.readouterr().out
    row = next(x for x in said.splitlines() if "held-out text" in x)
    assert row.split()[-2:] == ["–", "–"]
    for side in ("before", "after"):
        assert f"no perplexity {side}: out of memory: 2,000 MiB more were needed" in said
    assert jobs.names().count("score") == 2  # one that fails keeps no other one away


def test_what_cannot_be_held_out_costs_no_checkpoint(
    tmp_path: Path, jobs: Jobs, capsys: Capture
) -> None:
    jobs.fails["calibrate"] = FULL  # only the held-out part is written by this method
    assert main(["quantize", "model", "-o", "out", "--method", "nf4", "--json"]) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()
    told = json.loads(capsys.readouterr().out)
    for side in (told["before"], told["after"]):
        assert side["perplexity"] is None
        assert side["why"] == FULL.reason
    assert "score" not in jobs.names()


def test_a_held_out_text_that_is_too_short_is_the_reason(
    tmp_path: Path, jobs: Jobs, capsys: Capture
) -> None:
    jobs.results["calibrate"] = CalibrateResult(samples=1, tokens=9)
    assert main(["quantize", "model", "-o", "out", "--method", "nf4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for side in (told["before"], told["after"]):
        assert side["perplexity"] is None
        assert side["why"] == "the held-out text has 9 tokens, and at least 64 are needed"
    assert "score" not in jobs.names()


def test_a_model_too_large_to_write_its_chats_is_told_what_else_there_is(
    jobs: Jobs, capsys: Capture
) -> None:
    jobs.fails["calibrate"] = FULL
    assert main(["quantize", "model"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("quantchat: out of memory: 2,000 MiB more were needed (")
    assert "--calibration FILE" in said and "--device cpu" in said and "fewer bits" not in said
    jobs.fails["calibrate"] = Failed("internal", "something else", "retry")
    assert main(["quantize", "model"]) == 1
    assert "--calibration" not in capsys.readouterr().err


def test_stopping_after_the_checkpoint_says_where_it_is(
    tmp_path: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    async def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(outcome, "judge", interrupt)
    assert main(["quantize", "model", "-o", "out"]) == 130
    assert "stopped; the checkpoint is in out" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").exists()


def nll(*values: float) -> bytes:
    return array("d", [*values] * 255).tobytes()


def test_the_difference_of_the_perplexities_is_paired(jobs: Jobs, capsys: Capture) -> None:
    """Each token was a hundredth harder: sure, while each perplexity by itself is not."""
    jobs.writes["score"] = [nll(2, 3), nll(2.01, 3.01)]
    assert main(["quantize", "model"]) == 0
    said = capsys.readouterr().out
    (row,) = (line for line in said.splitlines() if line.strip().startswith("ΔPPL"))
    assert row.split()[-2:] == ["+0.1224", "±0.0027"]
    assert "± one standard error, that of ΔPPL paired by token" in " ".join(said.split())
    jobs.writes["score"] = [nll(2, 3), nll(3, 2)]  # and here nothing is sure
    assert main(["quantize", "model", "--json"]) == 0
    more = json.loads(capsys.readouterr().out)["perplexity_more"]
    assert more["value"] == pytest.approx(0, abs=1e-9)
    assert more["error"] == pytest.approx(2 * math.exp(2.5) * 0.5 / math.sqrt(509))


def test_perplexities_over_other_tokens_are_not_compared(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    reads = iter(("one", "another"))

    async def read(*args: Any) -> Any:
        return replace(await run_job(*args), ids_sha256=next(reads))

    monkeypatch.setattr("quantchat.features.quantize.outcome.run_job", read)
    assert main(["quantize", "model"]) == 0
    said = capsys.readouterr().out
    assert said.count("12.18 ±0.27") == 2
    assert "ΔPPL" not in said and "paired by token" not in said


def test_a_short_calibration_gives_no_perplexity(jobs: Jobs, capsys: Capture) -> None:
    jobs.results["calibrate"] = CalibrateResult(samples=1, tokens=outcome.FEWEST - 1)
    assert main(["quantize", "model"]) == 0
    assert "score" not in jobs.names()
    row = next(x for x in capsys.readouterr().out.splitlines() if "held-out text" in x)
    assert row.split()[-2:] == ["–", "–"]


# ------------------------------------------------------------ out of the cache


def test_a_full_disk_is_seen_before_copying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "made").mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * 5000)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=4000))
    with pytest.raises(UserError, match="too full"):
        export.export(folder, tmp_path / "new" / "out")
    assert [f.name for f in tmp_path.iterdir()] == ["made"]


def test_what_cannot_be_copied_whole_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "made").mkdir()
    (folder / "model.safetensors").write_bytes(b"w")

    def half(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "half").write_bytes(b"")
        raise OSError(5, "Input/output error", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", half)
        with pytest.raises(UserError, match="Input/output error"):
            export.export(folder, tmp_path / "out")
    assert [f.name for f in tmp_path.iterdir()] == ["made"]
    (tmp_path / "out").mkdir()  # an empty folder is taken
    export.export(folder, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"w"


def test_too_little_calibration_is_told_once(jobs: Jobs, capsys: Capture) -> None:
    used = replace(CALIBRATION, widest=14336)
    jobs.results["quantize gptq"] = replace(QUANTIZED, calibration=used)
    assert main(["quantize", "model", "--no-perplexity"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        said.count("0.35 tokens for each of the 14336 inputs of its widest module: at least one")
        == 1
    )
    assert said.count("for each of") == 1
    assert "set more samples, or more sample_tokens" in said


def test_the_group_size_is_one_that_divides_each_layer(
    tmp_path: Path, jobs: Jobs, capsys: Capture
) -> None:
    """The usual 128 does not divide the demo's width of 576."""
    narrow = {**LLAMA_2_7B, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 1}
    write_model(tmp_path / "model", narrow, llama_tensors(narrow))
    assert main(["quantize", "model", "-o", "out", "--no-perplexity"]) == 0
    assert dict(jobs.begun)["quantize gptq"].settings.group_size == 64
    shown = capsys.readouterr().out
    profile = (
        shown[shown.index("[[variants]]") :]
        + """
[[variants]]
label = "other"
engine = "bitsandbytes"
model = "/model"
"""
    )
    made = loads(f'name = "p"\n{profile}', where="p.toml", folder=tmp_path).variants[0]
    assert made == Gptq(label="GPTQ 4-bit", engine="gptq", model=str(tmp_path / "out"))


def test_autoround_gets_its_settings_and_the_same_calibration(
    jobs: Jobs, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "auto_round", _named("auto_round"))
    jobs.results["quantize autoround"] = replace(QUANTIZED, losses=[])
    asked = ["--method", "autoround", "--iters", "50", "--bits", "3", "--no-perplexity"]
    assert main(["quantize", "model", *asked]) == 0
    assert jobs.names() == ["calibrate", "quantize autoround"]
    job = dict(jobs.begun)["quantize autoround"]
    assert (job.settings.iters, job.settings.bits, job.settings.sym) == (50, 3, True)
    assert job.format == "auto_gptq"
    said = capsys.readouterr()
    assert "rounding block 1 of 2: half" in said.err
    assert 'engine = "autoround"' in said.out and "made/model-autoround-3bit-g128-" in said.out
    assert main(["quantize", "model", "--method", "gptq", "--iters", "50"]) == 2
    assert "--iters: cannot be used with --method gptq" in capsys.readouterr().err


def test_autoround_makes_the_format_that_is_asked_for(
    jobs: Jobs, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "auto_round", _named("auto_round"))
    jobs.results["quantize autoround"] = replace(QUANTIZED, losses=[])
    asked = ["quantize", "model", "--method", "autoround", "--format", "auto_awq"]
    assert main([*asked, "--no-perplexity"]) == 0
    assert dict(jobs.begun)["quantize autoround"].format == "auto_awq"
    said = capsys.readouterr().out
    assert "made/model-autoround-awq-4bit-g128-" in said
    assert 'label = "AutoRound 4-bit (AWQ)"' in said
    assert main([*asked, "--bits", "3"]) == 2
    assert "the format auto_awq has 4 bits, not 3" in capsys.readouterr().err


def test_autoround_makes_a_gguf_file(
    jobs: Jobs, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("auto_round", "sentencepiece", "llama_cpp"):
        monkeypatch.setitem(sys.modules, name, _named(name))
    jobs.results["quantize gguf"] = replace(QUANTIZED, losses=[])
    asked = ["quantize", "model", "--method", "autoround-gguf", "--no-perplexity"]
    assert main([*asked, "--format", "q5_k_m"]) == 0
    assert jobs.names() == ["calibrate", "quantize gguf"]
    job = dict(jobs.begun)["quantize gguf"]
    assert (job.settings.format, job.settings.iters) == ("q5_k_m", 0)
    said = capsys.readouterr().out
    assert "made/model-autoround-q5_k_m-" in said
    assert 'label = "AutoRound Q5_K_M"' in said and 'engine = "gguf"' in said
    assert "gguf_file" not in said
    assert main([*asked, "--format", "auto_awq"]) == 2
    assert "--format auto_awq needs --method autoround" in capsys.readouterr().err
    assert main([*asked, "--group-size", "64"]) == 2
    assert "--group-size: cannot be used with --method" in capsys.readouterr().err


def test_a_missing_library_is_named_before_the_calibration(
    jobs: Jobs, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["quantize", "model", "--method", "autoround"]) == 1
    said = capsys.readouterr().err
    assert "needs the package auto-round" in said
    assert "python -m pip install 'quantchat[autoround]'" in said
    assert jobs.begun == []


def _named(name: str) -> ModuleType:
    """A module that can be found, like one that is installed."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    return module
