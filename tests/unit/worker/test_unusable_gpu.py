"""A GPU that torch cannot use, or not with every dtype: what is refused or used instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from fakes.tiny_folder import tiny_folder
from quantchat.common import cuda_driver
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.loaders import load
from quantchat.worker.model import devices


@pytest.fixture
def unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A machine with a driver, where torch for CUDA 13.0 says the given words when it starts."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(devices, "_DRIVERS", (tmp_path,))

    def says(words: str) -> None:
        def init() -> None:
            raise RuntimeError(words)

        monkeypatch.setattr(torch.cuda, "init", init)

    return says


TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your "
    "GPU driver by downloading and installing a new version from the URL"
)


@pytest.mark.parametrize("wish", ["auto", "cuda", "cuda:1"])
def test_a_driver_that_is_too_old_is_no_reason_to_run_on_the_cpu(
    unusable: Callable[[str], None], wish: str
) -> None:
    unusable(TOO_OLD)
    with pytest.raises(Refused) as refused:
        devices.choose_device(wish)
    failure = refused.value.failure
    assert failure.kind == "gpu_unusable"
    assert (
        failure.reason == "the NVIDIA driver supports CUDA 12.4, and torch is built for CUDA 13.0"
    )
    assert "update the driver to 580 or newer" in failure.hint
    assert "cu126 or cu128" in failure.hint
    assert devices.choose_device("cpu") == "cpu"


def test_what_else_keeps_torch_from_the_gpu_is_told_in_its_words(
    unusable: Callable[[str], None],
) -> None:
    unusable(
        "Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported\ndriver"
    )
    with pytest.raises(Refused, match=r"cannot start the GPU: Unexpected.*unsupported driver"):
        devices.choose_device("auto")


@pytest.mark.parametrize("words", ["No CUDA GPUs are available", "Found no NVIDIA driver on your"])
def test_a_driver_without_a_gpu_leaves_the_cpu(unusable: Callable[[str], None], words: str) -> None:
    unusable(words)
    assert devices.choose_device("auto") == "cpu"
    with pytest.raises(Refused, match="no device cuda: 0 CUDA devices found"):
        devices.choose_device("cuda")


def test_gpus_that_are_hidden_or_not_there_leave_the_cpu(
    unusable: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unusable(TOO_OLD)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.choose_device("auto") == "cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(devices, "_DRIVERS", (tmp_path / "none",))
    assert devices.choose_device("auto") == "cpu"


def test_a_torch_without_cuda_is_told(
    unusable: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert devices.ignored_gpu_note("auto") == ""
    monkeypatch.setattr(torch.version, "cuda", None)
    assert devices.choose_device("auto") == "cpu"
    assert devices.ignored_gpu_note("auto").endswith("is built without CUDA")
    assert devices.ignored_gpu_note("cpu") == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # the user's own wish
    assert devices.ignored_gpu_note("auto") == ""


@pytest.mark.parametrize(
    ("driver_cuda", "torch_cuda", "too_old"),
    [
        ("12.4", "13.0", True),
        ("12.9", "12.4", False),
        ("12.4", "12.8", False),  # one major version: minor version compatibility
        ("13.0", "13.2", False),
        ("13.0", "12.6", False),
        ("9.2", "10.1", True),  # numbers, not text
        (None, "13.0", False),
        ("12.4", "", False),
    ],
)
def test_which_driver_is_too_old(driver_cuda: str | None, torch_cuda: str, too_old: bool) -> None:
    assert cuda_driver.too_old(driver_cuda, torch_cuda) is too_old


def test_the_cuda_of_torch_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cuda_driver.cuda_of_torch() == (torch.version.cuda or "")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('imported')")
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: SimpleNamespace(origin=str(tmp_path / name / "__init__.py")),
    )
    assert cuda_driver.cuda_of_torch() == ""
    version = tmp_path / "torch" / "version.py"
    version.write_text("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip = None\n")
    assert cuda_driver.cuda_of_torch() == "13.0"
    version.write_text("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n")
    assert cuda_driver.cuda_of_torch() == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cuda_driver.cuda_of_torch() == ""


@pytest.mark.parametrize(("capability", "told"), [((7, 5), True), ((8, 0), False)])
def test_a_gpu_without_bfloat16_is_told(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], told: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    note = devices.bfloat16_note(torch.bfloat16, "cuda:0")
    assert note.startswith("this GPU (compute capability 7.5) only emulates") is told
    assert bool(note) is told
    assert devices.bfloat16_note(torch.float16, "cuda:0").startswith("computes in float16") is told
    assert devices.bfloat16_note(torch.float32, "cuda:0") == ""
    assert devices.fast_dtype(torch.bfloat16, "cuda:0") == (
        torch.float16 if told else torch.bfloat16
    )
    assert devices.fast_dtype(torch.float32, "cuda:0") == torch.float32
    assert devices.fast_dtype(torch.bfloat16, "cpu") == torch.bfloat16
    assert devices.bfloat16_note(torch.bfloat16, "cpu") == ""


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("transformers", {}),
        ("bitsandbytes", {"quant_type": "nf4", "double_quant": True, "compute_dtype": "auto"}),
    ],
)
@pytest.mark.parametrize(
    ("wish", "capability", "dtype"),
    [
        ("auto", (7, 5), torch.float16),
        ("auto", (8, 0), torch.bfloat16),
        ("bfloat16", (7, 5), torch.bfloat16),  # as it was asked for
    ],
)
def test_float16_is_taken_where_bfloat16_is_only_emulated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    options: dict[str, Any],
    wish: str,
    capability: tuple[int, int],
    dtype: Any,
) -> None:
    import bitsandbytes  # noqa: F401 - before there is a GPU, for which it would want a library

    folder = tiny_folder(tmp_path)
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    asked: dict[str, Any] = {}

    def from_pretrained(_model: str, **more: Any) -> Any:
        asked.update(more)
        raise Refused("internal", "seen enough")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(Refused, match="seen enough"):
        load(LoadModel(engine, str(folder), options, dtype=wish), lambda stage: None)
    chosen = asked["dtype"]
    assert (torch.bfloat16 if chosen == "auto" else chosen) == dtype
    if options:
        assert asked["quantization_config"].bnb_4bit_compute_dtype == dtype
