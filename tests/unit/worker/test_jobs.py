"""The parts of jobs that need no model: prompts, batches, field names of older libraries."""

from __future__ import annotations

import importlib
import importlib.resources
import json
import re
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from hypothesis import given
from hypothesis import strategies as st
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from fakes.fake_hub import ask_at, serving
from fakes.tiny_checkpoint import write_checkpoint
from fakes.tiny_llama import tiny_llama
from quantchat.wire.jobs import JOBS, Job
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import dispatch
from quantchat.worker.jobs.calibrate import _batches
from quantchat.worker.jobs.config_compat import add_version_4_keys
from quantchat.worker.jobs.job_env import with_local_files
from quantchat.worker.jobs.layer_widths import check_awq, check_groups, widest
from quantchat.worker.jobs.quantize_gptq import _Progress
from quantchat.worker.model import hub
from quantchat.worker.model.files_check import refuse_quantized


def test_the_shipped_prompts() -> None:
    shipped = importlib.resources.files("quantchat.checkpoints")
    short, long = (
        (shipped / name).read_text("utf-8").splitlines()
        for name in ("prompts.txt", "long_prompts.txt")
    )
    prompts = [*short, *long]
    assert len(short) == 64  # others would be other checkpoints of the demo
    assert len(prompts) == len(set(prompts)) == 254
    assert all(prompt == prompt.strip() != "" for prompt in prompts)
    # The demo is judged by this one: it must not have been calibrated on it.
    assert not any("France" in prompt for prompt in prompts)


@given(st.integers(1, 100), st.integers(1, 500))
def test_batches_are_enough_and_end(count: int, samples: int) -> None:
    prompts = [str(n) for n in range(count)]
    batches = list(_batches(prompts, samples, 16))
    assert all(0 < len(batch) <= 16 for batch, _ in batches)
    asked = [prompt for batch, _ in batches for prompt in batch]
    assert len(asked) >= samples + count  # more than wanted, lest some repeat themselves
    greedy = [prompt for batch, sampled in batches for prompt in batch if not sampled]
    assert greedy == prompts


def written(folder: Path, name: str, body: dict[str, Any]) -> dict[str, Any]:
    (folder / name).write_text(json.dumps(body))
    add_version_4_keys(folder)
    after: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    assert {key: after[key] for key in body if key != "tokenizer_class"} == {
        key: body[key] for key in body if key != "tokenizer_class"
    }
    return after


def test_rotary_settings_are_written_in_both_spellings(tmp_path: Path) -> None:
    plain = {"rope_parameters": {"rope_theta": 1e5, "rope_type": "default"}, "name": "é"}
    after = written(tmp_path, "config.json", plain)
    assert after["rope_theta"] == 1e5
    assert "rope_scaling" not in after

    scaled = {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0}
    after = written(tmp_path, "config.json", {"rope_parameters": scaled})
    assert after["rope_theta"] == 5e5
    assert after["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"rope_parameters": None},
        {"rope_parameters": {"sliding": {"rope_theta": 1.0}, "full": {"rope_theta": 2.0}}},
    ],
)
def test_what_has_no_older_spelling_is_left(tmp_path: Path, body: dict[str, Any]) -> None:
    assert written(tmp_path, "config.json", body) == body


def test_the_tokenizers_class_has_a_name_both_know(tmp_path: Path) -> None:
    for named, expected in {
        "TokenizersBackend": "PreTrainedTokenizerFast",
        "LlamaTokenizer": "LlamaTokenizer",
    }.items():
        after = written(tmp_path, "tokenizer_config.json", {"tokenizer_class": named})
        assert after["tokenizer_class"] == expected


def test_a_folder_without_configs_stays_empty(tmp_path: Path) -> None:
    add_version_4_keys(tmp_path)
    assert list(tmp_path.iterdir()) == []


def silent(_done: int, _total: int, _detail: str) -> None:
    pass


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.title)
def test_each_job_is_done_by_its_own_module(
    job: type[Job[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"quantchat.worker.jobs.{job.title.replace(' ', '_')}")
    types = typing.get_type_hints(module.run)
    assert (types["job"], types["return"]) == (job, job.result_type())
    monkeypatch.setattr(module, "run", lambda asked, report: asked)
    asked: Any = object.__new__(job)  # no field matters here
    assert dispatch.run(asked, silent) is asked


def test_a_folder_is_taken_where_it_lies(tmp_path: Path) -> None:
    load = LoadModel("transformers", str(tmp_path), {})
    assert with_local_files(load, silent) == load


def test_a_model_of_a_hub_is_fetched_with_its_bytes_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = write_checkpoint(tmp_path / "hub" / "org" / "tiny")
    for other in ("consolidated.safetensors", "pytorch_model.bin", "modeling_own.py"):
        (there / other).write_bytes(bytes(1000))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    told: list[str] = []
    load = LoadModel("transformers", "org/tiny", {})
    with serving(tmp_path / "hub") as (address, _):
        ask_at(address, monkeypatch)
        found = with_local_files(load, lambda done, total, detail: told.append(detail))
        folder = Path(found.model)
        names = {file.name for file in folder.iterdir()}
        trusting = replace(load, trust_remote_code=True)
        assert with_local_files(trusting, silent) == replace(trusting, model=str(folder))
    assert told and all(re.fullmatch(r"fetched \d+ of \d+ MiB", detail) for detail in told)
    wanted = {f.name for f in there.iterdir() if f.suffix in {".json", ".safetensors"}}
    assert names == wanted - {"consolidated.safetensors"}
    assert {file.name for file in folder.iterdir()} == names | {"modeling_own.py"}


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (LocalEntryNotFoundError("Got: ConnectError\nAn error happened"), "Got: ConnectError"),
        (HFValidationError("\n bad name"), "bad name"),
    ],
)
def test_a_hub_that_does_not_give_the_model(
    monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
) -> None:
    asked: list[tuple[str, str]] = []

    def refuse(model: str, *, revision: str, **_which: Any) -> str:
        asked.append((model, revision))
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(hub, "check_disk_space", lambda *asked: None)  # which asks the hub first
    with pytest.raises(Refused) as caught:
        with_local_files(LoadModel("transformers", "org/name", {}, "v1"), silent)
    assert set(asked) == {("org/name", "v1")}  # of the hub, then of its cache
    assert caught.value.failure.kind == "fetch_failed"
    assert caught.value.failure.reason == f"cannot download org/name from the hub: {why}"


@pytest.mark.parametrize("group_size", [-1, 16, 32, 96, 64])
def test_groups_that_do_not_fit_are_told_with_some_that_do(group_size: int) -> None:
    model = tiny_llama()  # of widths 64 and 96
    if group_size in (-1, 16, 32):
        check_groups(model, group_size)
        return
    with pytest.raises(Refused, match=f"group size {group_size} does not divide the width") as told:
        check_groups(model, group_size)
    fitting = {96: 64, 64: 32}[group_size]  # of the first layer that it does not fit
    assert f"use a group size of {fitting}" in told.value.failure.hint


def test_awq_takes_blocks_of_64_outputs() -> None:
    wide = tiny_llama(hidden_size=128, intermediate_size=256, head_dim=32)
    quantized = ["self_attn.v_proj", "mlp.up_proj"]
    wide.model.layers[0].mlp.gate = torch.nn.Linear(128, 4)  # a router is not quantized
    check_awq(wide, quantized)
    wide.model.layers[1].mlp.up_proj = torch.nn.Linear(128, 96)
    with pytest.raises(
        Refused, match=r"multiple of 64 outputs, but layers\.1\.mlp\.up_proj has 96"
    ):
        check_awq(wide, quantized)


def test_groups_need_not_fit_what_is_not_quantized() -> None:
    text = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 1, "head_dim": 16}
    vision = {"hidden_size": 72, "intermediate_size": 200, "num_hidden_layers": 1}
    config = Gemma3Config(text_config=text, vision_config={**vision, "num_attention_heads": 2})
    with torch.device("meta"):
        model = Gemma3ForConditionalGeneration(config)
    widths = {m.in_features for m in model.modules() if isinstance(m, torch.nn.Linear)}
    assert widths >= {72, 200, 128, 192}
    check_groups(model, 64)
    assert widest(model) == 192
    with pytest.raises(Refused, match=r"the width 192 of layers\.0\.mlp\.down_proj"):
        check_groups(model, 128)


def test_a_model_that_is_quantized_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no config\.json that can be read"):
        refuse_quantized(str(tmp_path))
    config = tmp_path / "config.json"
    config.write_text('{"quantization_config": {"quant_method": "gptq"}}')
    with pytest.raises(Refused, match=r"already quantized \(gptq\)"):
        refuse_quantized(str(tmp_path))
    config.write_text("{}")
    refuse_quantized(str(tmp_path))


class Processor:
    """What GPTQModel hands to its callback: the bound method `name`, of a processor with a log."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []

    def name(self) -> str:
        return "gptq"


def test_progress_names_layers_losses_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int, str]] = []
    clock = iter(range(100, 1000, 10))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    progress = _Progress(4, lambda done, total, detail: told.append((done, total, detail)))
    processor = Processor()
    names = ["self_attn.q_proj", "self_attn.k_proj"]

    def heard(stage: str, layer: int, subset: int) -> None:
        progress(
            stage=stage,
            layer_idx=layer,
            subset_index=subset,
            subset_total=2,
            module_names=names,
            processor=processor.name,
            more="of a later version",
        )

    heard("forward_start", 2, 0)  # gone on with at the third layer
    assert told == [(3, 4, "q_proj, k_proj")]
    assert progress.first == 2
    processor.log += [
        {"layer": 1, "module": names[0], "loss": "9.0"},
        {"layer": 2, "module": names[0], "loss": "0.00123"},
        {"layer": 2, "module": names[1], "loss": "rtn"},  # it was only rounded
    ]
    heard("quant_complete", 2, 0)  # 10 s for one of the four groups of modules
    assert told[-1] == (3, 4, "30 s left · loss of q_proj 0.0012")
    # While the next group is worked on, what is known stays.
    heard("forward_start", 2, 1)
    assert told[-1] == (3, 4, "30 s left · q_proj, k_proj · loss of q_proj 0.0012")
    heard("quant_complete", 2, 1)
    assert told[-1] == (3, 4, "20 s left · loss of q_proj 0.0012")
    processor.log.clear()
    heard("quant_complete", 3, 0)
    assert told[-1] == (4, 4, "10 s left")
    progress = _Progress(1000, lambda done, total, detail: told.append((done, total, detail)))
    heard("quant_complete", 0, 0)
    assert told[-1][2].startswith("333 min left")
