"""The builder calibrates on the user's data, and saves checkpoints that loading quantizes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from fakes.model_folder import LLAMA_2_7B, write_model
from fakes.scripted_jobs import Jobs
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.calibration_stages import Calibrate
from quantchat.checkpoints.gptq_stage import QuantizeGptq
from quantchat.engines.bitsandbytes import BitsAndBytes
from quantchat.engines.gptq import Gptq
from quantchat.engines.quantize import Quantize
from quantchat.engines.transformers import Transformers
from quantchat.engines.variant import DEMO_MODEL
from quantchat.errors import UserError
from quantchat.host.job_runner import JobFailed
from quantchat.wire.jobs import (
    CalibrationUsed,
    MergeAdapterResult,
    MergedAdapter,
    QuantizeGptqResult,
)
from quantchat.wire.messages import Progress

SIZE = ("samples", "sample_tokens")


def silent(progress: Progress) -> None:
    pass


@pytest.fixture
def jobs(tmp_path: Path, own_folders: None) -> Jobs:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return Jobs(tmp_path)


def gptq(folder: Path, **settings: Any) -> Gptq:
    quantize = Quantize.model_validate(settings)
    return Gptq(label="GPTQ", engine="gptq", model=str(folder / "model"), quantize=quantize)


async def test_a_calibration_file_is_known_by_what_it_holds(tmp_path: Path, jobs: Jobs) -> None:
    file, other = tmp_path / "text.txt", tmp_path / "the same.txt"
    file.write_text("some words")
    other.write_text("some words")
    builder = CheckpointBuilder(jobs.start)
    await builder.prepare(gptq(tmp_path, calibration=str(file)), silent)
    assert jobs.names() == ["collect", "quantize gptq"]
    read, quantized = (job for _, job in jobs.begun)
    assert read.file == str(file)
    assert read.part == "calibration"
    assert read.sample_tokens is None
    assert quantized.most_tokens == 160  # as was chosen where it was read
    longer = gptq(tmp_path, calibration=str(file), sample_tokens=99)
    await builder.prepare(longer, silent)
    assert [getattr(job, "most_tokens", None) for _, job in jobs.begun[2:]] == [None, 99]
    del jobs.begun[2:]

    await builder.prepare(gptq(tmp_path, calibration=str(other)), silent)
    assert len(jobs.begun) == 2
    file.write_text("other words")
    await builder.prepare(gptq(tmp_path, calibration=str(file)), silent)
    assert jobs.names()[2:] == ["collect", "quantize gptq"]


async def test_nothing_is_begun_on_a_file_that_cannot_be_read(tmp_path: Path, jobs: Jobs) -> None:
    (file := tmp_path / "chats.jsonl").write_text('{"text": "fine"}\n{"text": 7}\n')
    spec = gptq(tmp_path, calibration=str(file))
    with pytest.raises(UserError, match="neither a text nor messages") as caught:
        await CheckpointBuilder(jobs.start).prepare(spec, silent)
    assert caught.value.where == f"{file}:2"
    file.unlink()
    with pytest.raises(UserError, match="No such file"):
        await CheckpointBuilder(jobs.start).prepare(spec, silent)
    assert jobs.begun == []


async def test_chats_are_known_by_what_their_template_is_told(tmp_path: Path, jobs: Jobs) -> None:
    builder, plain = CheckpointBuilder(jobs.start), gptq(tmp_path)
    await builder.prepare(plain, silent)
    assert not any(job.load.options for _, job in jobs.begun)
    told = plain.model_copy(update={"chat_template_kwargs": {"enable_thinking": False}})
    await builder.prepare(told, silent)
    assert jobs.names() == 2 * ["calibrate", "quantize gptq"]
    assert all(job.load.options["chat_template_kwargs"] for _, job in jobs.begun[2:])


async def test_a_tokenizer_that_is_lent_is_lent_for_each_job(tmp_path: Path, jobs: Jobs) -> None:
    builder, plain = CheckpointBuilder(jobs.start), gptq(tmp_path)
    await builder.prepare(plain, silent)
    assert not any(job.load.options for _, job in jobs.begun)
    (lender := tmp_path / "lender").mkdir()
    (lender / "tokenizer.json").write_text("{}")
    lent = plain.model_copy(update={"tokenizer": str(lender)})
    for template in ("one", "another"):  # what it holds is what counts, not where it lies
        (lender / "chat_template.jinja").write_text(template)
        jobs.begun.clear()
        await builder.prepare(lent, silent)
        await builder.prepare(lent, silent)
        assert jobs.names() == ["calibrate", "quantize gptq"]
        assert {job.load.options["tokenizer"] for _, job in jobs.begun} == {str(lender)}
    jobs.begun.clear()
    named = "org/lender@main"
    (tmp_path / "text.txt").write_text("some words")
    read = gptq(tmp_path, calibration=str(tmp_path / "text.txt"))
    saved = BitsAndBytes(
        label="NF4",
        engine="bitsandbytes",
        model=plain.model,
        save_quantized=True,
        adapter="org/adapter",
        merge_adapter=True,
    )
    for spec in (read, saved):
        await builder.prepare(spec.model_copy(update={"tokenizer": named}), silent)
    assert jobs.names() == ["collect", "quantize gptq", "merge adapter", "quantize bitsandbytes"]
    assert {job.load.options["tokenizer"] for _, job in jobs.begun} == {named}


async def test_a_checkpoint_that_was_calibrated_on_too_little_says_so(
    tmp_path: Path, jobs: Jobs
) -> None:
    """Where it is loaded, in a column of the screen and in a snapshot, made now or long ago."""
    for number, (widest, said) in enumerate(((1250, False), (14336, True), (0, False))):
        about = CalibrationUsed(samples=32, tokens=5000, sha256="ab" * 32, widest=widest)
        jobs.results["quantize gptq"] = QuantizeGptqResult(2, [], about, 0)
        spec = gptq(tmp_path, seed=number)
        prepared = await CheckpointBuilder(jobs.start).prepare(spec, silent)
        assert prepared == CheckpointBuilder(jobs.start).find(spec)
        told = "calibrated on 0.35 tokens for each of the 14336 inputs of its widest module"
        assert prepared.note.startswith(told) is said
        assert bool(prepared.note) is said


async def test_a_data_set_is_known_by_its_name(tmp_path: Path, jobs: Jobs) -> None:
    spec = gptq(tmp_path, calibration="hub:org/name:train:text")
    await CheckpointBuilder(jobs.start).prepare(spec, silent)
    (_, job), _ = jobs.begun
    assert job.dataset == "hub:org/name:train:text"
    assert job.file == ""


async def test_what_is_held_out_is_not_calibrated_on(tmp_path: Path, jobs: Jobs) -> None:
    spec, builder = gptq(tmp_path, samples=64), CheckpointBuilder(jobs.start)
    await builder.prepare(spec, silent)
    assert spec.quantize
    held = await builder.held_out(spec, spec.quantize, silent)
    assert held.name == "chats.txt"
    used, apart = (job.prompts for name, job in jobs.begun if name == "calibrate")
    assert len(apart) == 16
    assert not set(used) & set(apart)


async def test_how_much_is_left_to_the_worker_but_for_the_demo(tmp_path: Path, jobs: Jobs) -> None:
    """The demo's checkpoints stay those that are made already."""
    here = gptq(tmp_path)
    assert here.quantize
    demo = here.model_copy(update={"model": DEMO_MODEL})
    stages: dict[str, Calibrate] = {}
    for name, spec in (
        ("here", here),
        ("demo", demo),
        ("here on cpu", here.model_copy(update={"device": "cpu"})),
        ("demo on cpu", demo.model_copy(update={"device": "cpu"})),
    ):
        stage = CheckpointBuilder(jobs.start)._stage(spec)
        assert isinstance(stage, QuantizeGptq)
        chats = stage.needs[-1]
        assert isinstance(chats, Calibrate)
        stages[name] = chats
    sizes = {name: [stage.inputs[k] for k in SIZE] for name, stage in stages.items()}
    assert sizes["here"] == sizes["here on cpu"] == [None, None]
    assert sizes["demo"] == sizes["demo on cpu"] == [32, 160]
    assert len(stages["demo"].prompts) == 32
    # What is written on a CPU is less: it must not be taken for what a GPU would write.
    assert stages["here"].name != stages["here on cpu"].name
    assert stages["demo"].name == stages["demo on cpu"].name
    asked = stages["here"].prompts
    assert len(asked) == 254 - 16
    assert asked[:32] == stages["demo"].prompts


async def test_bitsandbytes_checkpoints_are_kept_where_that_is_wished(
    tmp_path: Path, jobs: Jobs
) -> None:
    spec = BitsAndBytes(label="NF4", engine="bitsandbytes", model=str(tmp_path / "model"))
    builder = CheckpointBuilder(jobs.start)
    assert (await builder.prepare(spec, silent)).model == spec.model
    assert "save_quantized" not in spec.options
    saving = spec.model_copy(update={"save_quantized": True})
    made = Path((await builder.prepare(saving, silent)).model)
    assert made.name.startswith("model-nf4-")
    assert jobs.names() == ["quantize bitsandbytes"]
    for change in ({"double_quant": False}, {"quant_type": "fp4"}, {"compute_dtype": "float32"}):
        again = await builder.prepare(saving.model_copy(update=change), silent)
        assert Path(again.model) != made
    assert await builder.prepare(saving, silent)
    assert len(jobs.begun) == 4


async def test_room_for_quantizing_is_looked_for_before(
    tmp_path: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "model", LLAMA_2_7B, {"one.weight": ("F16", (2**29, 2))})  # 2 GiB
    builder, spec = CheckpointBuilder(jobs.start, tmp_path / "made"), gptq(tmp_path)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=2 * 2**30))
    with pytest.raises(JobFailed, match="4160 MiB are needed, 2048 are free"):
        await builder.prepare(spec, silent)
    assert jobs.names() == ["calibrate"]  # which is kept, and takes next to nothing
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=5 * 2**30))
    await builder.prepare(spec, silent)
    assert jobs.names() == ["calibrate", "quantize gptq"]


async def test_an_adapter_is_known_by_what_its_files_hold(tmp_path: Path, jobs: Jobs) -> None:
    for name, body in (("lora", b"one"), ("other", b"one"), ("third", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
        (tmp_path / name / "adapter_model.safetensors").write_bytes(body)
    builder = CheckpointBuilder(jobs.start)

    async def begun(adapter: str, *, merged: bool = True, **more: Any) -> list[str]:
        before = len(jobs.begun)
        adapted = {"adapter": adapter, "merge_adapter": merged}
        await builder.prepare(gptq(tmp_path, **more).model_copy(update=adapted), silent)
        return jobs.names()[before:]

    everything = ["merge adapter", "calibrate", "quantize gptq"]
    assert await begun(str(tmp_path / "lora")) == everything
    assert await begun(str(tmp_path / "lora"), bits=3) == ["quantize gptq"]
    assert await begun(str(tmp_path / "third")) == everything
    assert await begun("org/lora@v1") == everything
    assert await begun("org/lora@v2") == everything
    # Beside the weights: the base itself is quantized, whatever the adapter.
    assert await begun(str(tmp_path / "lora"), merged=False) == everything[1:]
    assert await begun(str(tmp_path / "third"), merged=False) == []
    # A name is no content: this one holds what the first one does, under another name.
    key = {"adapter_config.json", "adapter_model.safetensors"}
    assert {f.name for f in (tmp_path / "other").iterdir()} == key
    assert await begun(str(tmp_path / "other"), bits=3) == everything


async def test_a_merged_model_may_be_loaded_as_it_is(tmp_path: Path, jobs: Jobs) -> None:
    adapted = {"model": str(tmp_path / "model"), "adapter": "org/lora", "merge_adapter": True}
    plain = Transformers.model_validate({"label": "bf16", "engine": "transformers", **adapted})
    nf4 = BitsAndBytes.model_validate({"label": "NF4", "engine": "bitsandbytes", **adapted})
    merged = MergedAdapter("org/lora", "LoRA r8 on q_proj", "cd" * 32)
    jobs.results["merge adapter"] = MergeAdapterResult(merged)
    builder = CheckpointBuilder(jobs.start)
    assert builder.find(plain) is None
    prepared = await builder.prepare(plain, silent)
    assert prepared.note == "the adapter org/lora is merged (LoRA r8 on q_proj)"
    assert Path(prepared.model).name.startswith("model-with-lora-")
    assert await builder.prepare(nf4, silent) == prepared == builder.find(plain)
    assert jobs.names() == ["merge adapter"]
