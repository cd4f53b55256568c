"""`quantchat plan` on a GPU that torch cannot use, or for which no fast kernel can be compiled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.model_folder import LLAMA_2_7B, gptq_tensors, llama_tensors, write_model
from fakes.printed_document import printed
from fakes.saved_snapshots import SAMPLE
from fakes.scripted_machine import GPU
from quantchat.cli import main
from quantchat.features.memory_plan import tables as report
from quantchat.measuring.memory_plan import make_plan, warning
from quantchat.profile.model import Profile
from quantchat.system.sampler import DeviceSample

NEW = replace(SAMPLE, gpus=[replace(GPU, memory_used=0)], cuda="13.0")
OLD = replace(NEW, cuda="12.4")


@pytest.fixture(autouse=True)
def _torch_for_cuda_13(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0")
    monkeypatch.setattr("quantchat.common.cuda_driver.cuda_of_torch", lambda: "13.0")
    monkeypatch.setattr("quantchat.common.cuda_toolkit.build_problem", lambda cuda: "")


def pair(folder: Path, kernel: str, device: str) -> Profile:
    config = {**LLAMA_2_7B, "quantization_config": {"bits": 4, "group_size": 128}}
    made = write_model(folder / "gptq", config, gptq_tensors(LLAMA_2_7B, 4, 128))
    base = write_model(folder / "base", LLAMA_2_7B, llama_tensors(LLAMA_2_7B), shards=2)
    gptq = {"label": "GPTQ", "engine": "gptq", "model": str(made), "kernel": kernel}
    nf4 = {"label": "NF4", "engine": "bitsandbytes", "model": str(base)}
    variants = [{**one, "device": device} for one in (gptq, nf4)]
    return Profile.model_validate({"name": "Llama", "variants": variants})


@pytest.mark.parametrize(
    ("kernel", "lacking", "note"),
    [
        ("auto", "", ""),
        ("auto", "there is no nvcc", "SLOW KERNEL, unless a faster one was compiled before"),
        ("marlin", "there is no nvcc", "marlin must be compiled, and there is no nvcc"),
        ("triton", "", "SLOW KERNEL: the kernel triton unpacks each weight anew for each token"),
    ],
)
def test_a_slow_gptq_kernel_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str, lacking: str, note: str
) -> None:
    monkeypatch.setattr("quantchat.common.cuda_toolkit.build_problem", lambda cuda: lacking)
    first, second = make_plan(pair(tmp_path, kernel, "auto"), NEW).variants
    told = [line for line in first.notes if line.startswith(note)] if note else first.notes
    assert len(told) == bool(note)
    if lacking:
        assert "pip install 'quantchat[cuda-build]'" in told[0]
    assert second.notes == []  # bitsandbytes compiles nothing
    assert make_plan(pair(tmp_path, kernel, "cpu"), NEW).variants[0].notes == []


def test_a_driver_too_old_for_torch_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    profile = pair(tmp_path, "auto", "auto")
    plan = make_plan(profile, OLD)
    assert plan.fit == "cannot run"
    (device_plan,) = plan.devices
    assert device_plan.device.unusable.startswith(
        "the NVIDIA driver supports CUDA 12.4, and torch is built"
    )
    text = printed(report.blocks(plan), 400)
    for words in ("cannot run: GPTQ and NF4 on GPU 0", "driver to 580 or newer", "cu126 or cu128"):
        assert words in text
    told = warning(profile, OLD)
    assert told is not None
    assert told.startswith("GPTQ and NF4 cannot run: the NVIDIA driver supports CUDA 12.4")
    assert make_plan(profile, NEW).fit == "fits"
    assert make_plan(pair(tmp_path, "auto", "cpu"), OLD).devices[0].device.unusable == ""
    elsewhere = [one.model_copy(update={"python": "/venv/python"}) for one in profile.variants]
    other = make_plan(profile.model_copy(update={"variants": elsewhere}), OLD)
    assert other.fit == "fits"  # its torch is another one


def test_the_command_fails_where_the_gpu_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Sampler:
        def sample(self) -> DeviceSample:
            return OLD

        def close(self) -> None:
            pass

    profile = pair(tmp_path, "auto", "auto")
    monkeypatch.setattr("quantchat.system.sampler.DeviceSampler", Sampler)
    monkeypatch.setattr("quantchat.profile.load.load", lambda path: profile)
    assert main(["plan", str(tmp_path / "any.toml"), "--offline", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["fit"] == "cannot run"
