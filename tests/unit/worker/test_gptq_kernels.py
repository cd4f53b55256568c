"""The kernel of a GPTQ variant on a GPU: it fits the checkpoint and can be compiled."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from fakes.decoder_probe import ROUNDING, Probe
from fakes.tiny_architectures import tiny_config
from fakes.tiny_llama import tiny_llama
from quantchat.common import cuda_toolkit
from quantchat.wire.messages import LoadModel, Progress
from quantchat.worker.failures import Refused, describe
from quantchat.worker.loaders import gptq_kernels, kernel_build
from quantchat.worker.loaders.gptq import _whole_rows, name_model_kind, text_model
from quantchat.worker.loaders.gptq_kernels import Chosen, choose, quantization, unsupported_reason
from quantchat.worker.loaders.kernel_build import built, progress_of

PLAIN_TORCH = {"GPTQ_TORCH_TRITON_DEQUANT": "0", "TORCHDYNAMO_DISABLE": "1"}
FOUR_BITS = {"bits": 4, "group_size": 128, "desc_act": False, "sym": True}


def checkpoint(folder: Path, dtype: str = "bfloat16", **settings: Any) -> str:
    config = tiny_llama().config
    config.dtype = dtype
    config.quantization_config = {"quant_method": "gptq", **FOUR_BITS, **settings}
    config.save_pretrained(folder)
    return str(folder)


class Machine:
    """A GPU box: kernels that are not for its GPU, and extensions that cannot be built on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *broken: str) -> None:
        from gptqmodel import extension

        self.built: list[str] = []
        self.broken = broken
        self.stages: list[str] = []
        monkeypatch.setattr(extension, "is_available", self._build)
        monkeypatch.setattr(extension, "error", lambda name: f"{name}: no nvcc\nwas found")
        monkeypatch.setattr(gptq_kernels, "unsupported_reason", self._unfit)
        self.no_triton = ""
        for module in (gptq_kernels, kernel_build):
            monkeypatch.setattr(module, "triton_problem", lambda: self.no_triton)
        monkeypatch.setattr(kernel_build, "compiled_before", lambda extension: False)
        self.progress: list[Progress] = []
        self.capability = (9, 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: self.capability)
        for name in PLAIN_TORCH:
            monkeypatch.setenv(name, "as it was")

    def _build(self, name: str) -> bool:
        self.built.append(name)
        return name not in self.broken

    @staticmethod
    def _unfit(name: str, settings: dict[str, Any], dtype: Any, family: str) -> str:
        # Marlin asks CUDA for the GPU's generation: here it says what it says of other bits there.
        if name == "marlin":
            return "" if settings["bits"] in (4, 8) else "MarlinLinear only supports [4, 8] bits"
        return unsupported_reason(name, settings, dtype, family)

    def choose(self, model: str, **more: Any) -> Chosen:
        command = LoadModel("gptq", model, more.pop("options", {}), **more)
        return choose(command, self.stages.append, self.progress.append)


def test_the_fastest_is_built_before_the_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    assert machine.choose(checkpoint(tmp_path)) == Chosen("marlin", torch.bfloat16)
    assert machine.stages == ["compiling the kernel marlin"]
    machine.choose(checkpoint(tmp_path, dtype="float16"))
    machine.choose(checkpoint(tmp_path, dtype="float32"))  # which GPTQModel turns into bfloat16
    machine.choose(checkpoint(tmp_path), dtype="float16")
    assert machine.built == ["marlin_bf16", "marlin_fp16", "marlin_bf16", "marlin_fp16"]


def test_float16_is_built_for_a_gpu_that_only_emulates_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    machine.capability = (7, 5)
    assert machine.choose(checkpoint(tmp_path)) == Chosen("marlin", torch.float16)
    assert machine.choose(checkpoint(tmp_path), dtype="bfloat16").dtype == torch.bfloat16
    assert machine.built == ["marlin_fp16", "marlin_bf16"]


def test_where_it_cannot_be_built_the_next_is_taken_and_it_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, "marlin_bf16", "exllamav2")
    chosen = machine.choose(checkpoint(tmp_path))
    assert (chosen.name, chosen.note) == (
        "triton",
        "not marlin: marlin_bf16: no nvcc was found; not exllama_v2: exllamav2: no nvcc was found",
    )
    assert "the kernel triton unpacks each weight anew for each token" in chosen.slow
    assert "pip install 'quantchat[cuda-build]'" in chosen.slow
    assert machine.built == ["marlin_bf16", "exllamav2"]


def test_without_a_c_compiler_torch_unpacks_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, "marlin_bf16", "exllamav2")
    model = checkpoint(tmp_path)
    machine.choose(model, options={"kernel": "torch"})
    assert os.environ["TORCHDYNAMO_DISABLE"] == "as it was"
    machine.no_triton = "no C compiler (gcc or clang) was found"
    chosen = machine.choose(model)
    assert chosen.name == "torch"
    assert chosen.note.endswith("; not triton: no C compiler (gcc or clang) was found")
    assert PLAIN_TORCH.items() <= os.environ.items()
    with pytest.raises(Refused, match="kernel triton cannot be compiled: no C compiler"):
        machine.choose(model, options={"kernel": "triton"})


def test_plain_torch_is_asked_for_in_gptqmodels_and_torchs_own_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gptqmodel.nn_modules.qlinear import torch as kernel

    monkeypatch.setattr(kernel, "_TRITON_DEQUANT_AVAILABLE", True)
    for name, value in PLAIN_TORCH.items():
        monkeypatch.setenv(name, value)
    layer = kernel.TorchLinear(4, 32, True, False, 64, 64, register_buffers=True)
    layer.post_init()
    assert not layer._triton_dequant_enabled
    assert layer.dequantize_weight.__func__ is kernel.TorchLinear.dequantize_weight


def test_nothing_is_built_that_is_not_for_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    chosen = machine.choose(checkpoint(tmp_path, bits=3))
    assert chosen.name == "torch"
    assert "not triton: TritonV2Linear only supports `[2, 4, 8]` bits" in chosen.note
    assert (
        "no faster kernel supports this checkpoint" in chosen.slow
    )  # and a compiler helps nothing
    assert machine.built == machine.stages == []


def test_a_named_kernel_is_built_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = checkpoint(tmp_path)
    machine = Machine(monkeypatch, "machete")
    for name in ("triton", "gptq_triton", "marlin"):
        assert machine.choose(model, options={"kernel": name}).name == name.removeprefix("gptq_")
    with pytest.raises(Refused, match="kernel machete cannot be compiled: machete: no nvcc was"):
        machine.choose(model, options={"kernel": "machete"})
    assert machine.built == ["marlin_bf16", "machete"]
    assert machine.choose(model, options={"kernel": "marlin"}).slow == ""
    assert 'use kernel = "auto"' in machine.choose(model, options={"kernel": "triton"}).slow


def test_without_a_compiler_nothing_is_begun_and_the_cure_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(cuda_toolkit, "build_problem", lambda cuda: f"there is no nvcc for {cuda}")
    chosen = machine.choose(checkpoint(tmp_path))
    assert chosen.name == "triton"
    assert chosen.note.startswith("not marlin: there is no nvcc for 13.0 to compile it with")
    assert machine.built == machine.stages == []
    with pytest.raises(Refused) as refused:
        machine.choose(str(tmp_path), options={"kernel": "marlin"})
    assert "quantchat[cuda-build]" in refused.value.failure.hint
    monkeypatch.setattr(kernel_build, "compiled_before", lambda extension: True)
    assert machine.choose(str(tmp_path)) == Chosen("marlin", torch.bfloat16)
    assert machine.stages == ["loading the kernel marlin"]


def test_how_far_a_build_is(tmp_path: Path) -> None:
    assert progress_of(tmp_path) == (0, 0)
    old, new = tmp_path / "0a", tmp_path / "0b"
    for folder, objects in ((old, ("a.o",)), (new, ("a.o", "b.cuda.o", "c.cuda.o"))):
        folder.mkdir()
        lines = [f"build {name}: cuda_compile /src/{name}u" for name in objects]
        text = "\n".join(["rule link", *lines, f"build ops.so: link {' '.join(objects)}", ""])
        (folder / "build.ninja").write_text(text)
    (old / "ops.so").touch()
    assert progress_of(tmp_path) == (0, 3)
    (new / "a.o").touch()
    (new / "c.cuda.o").touch()
    assert progress_of(tmp_path) == (2, 3)


def test_a_long_build_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    heard = threading.Event()
    monkeypatch.setattr(kernel_build, "POLL_S", 0.01)
    monkeypatch.setattr(kernel_build, "progress_of", lambda root: (2, 6))

    def build(name: str) -> bool:
        return heard.wait(60)

    monkeypatch.setattr("gptqmodel.extension.is_available", build)
    told: list[Progress] = []

    def building(progress: Progress) -> None:
        told.append(progress)
        heard.set()

    assert built("marlin", torch.bfloat16, machine.stages.append, building) == ""
    first = told[0]
    assert (first.stage, first.done, first.total) == ("compiling the kernel marlin", 2, 6)
    assert first.detail.startswith("2 of 6 files, ")
    assert not [one for one in threading.enumerate() if one.name == "build progress"]


def test_the_compilers_own_complaint_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, "exllamav2")
    said = (
        "ExLlamaV2: failed to build torch.ops JIT extension: Error building extension 'x': "
        "[1/3] c++ -MMD -I/long\nCUDAContextLight.h:10: fatal error: cusparse.h: No such file\n"
        "   10 | #include <cusparse.h>\nninja: build stopped | build_root=/x"
    )
    monkeypatch.setattr("gptqmodel.extension.error", lambda name: said)
    problem = built("exllama_v2", torch.float16, machine.stages.append, lambda progress: None)
    assert problem == "fatal error: cusparse.h: No such file"


def test_marlins_sources_are_copied_where_they_cannot_be_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptqmodel.utils import marlin

    root = tmp_path / "site-packages" / "marlin"
    (root / "core").mkdir(parents=True)
    for name in ("a.cu", "core/b.h"):
        (root / name).write_text(name)
    monkeypatch.setattr(marlin, "_marlin_root", lambda: root)
    monkeypatch.setenv("GPTQMODEL_MARLIN_BF16_BUILD_ROOT", str(tmp_path / "build" / "bf16"))
    kernel_build._make_sources_writable()
    assert marlin._marlin_root() == root
    assert sorted(one.name for one in root.iterdir()) == ["a.cu", "core"]

    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr(Path, "touch", refuse)  # as root, who runs the tests, may write anywhere
    for _ in range(2):
        kernel_build._make_sources_writable()
        copy = marlin._marlin_root()
        assert copy == tmp_path / "build" / "marlin_sources"
        assert (copy / "core" / "b.h").read_text() == "core/b.h"
        monkeypatch.setattr(marlin, "_marlin_root", lambda: root)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to build for")
def test_gptqmodel_says_why_nothing_is_built_here() -> None:
    problem = built("exllama_v2", torch.float16, lambda stage: None, lambda progress: None)
    assert problem == "ExLlamaV2 GPTQ: CUDA is not available."


def test_the_settings_of_a_checkpoint(tmp_path: Path) -> None:
    config = tiny_llama().config
    assert quantization(str(tmp_path), config) == {**FOUR_BITS, "group_size": -1}
    told = {"bits": 3, "group_size": 32, "desc_act": True, "sym": False}
    (tmp_path / "quantize_config.json").write_text(json.dumps(told))
    assert quantization(str(tmp_path), config) == told
    config.quantization_config = {**told, "bits": 8}
    assert quantization(str(tmp_path), config) == {**told, "bits": 8}
    (tmp_path / "quantize_config.json").write_text("{")
    del config.quantization_config
    assert quantization(str(tmp_path), config) == {**FOUR_BITS, "group_size": -1}


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (AttributeError("'X' object has no attribute 'embed_in'"), "unsupported", "embed_in"),
        (KeyError("model.layers.0"), "unsupported", "GPTNeoXForCausalLM (gpt_neox)"),
        (NotImplementedError("no"), "unsupported", "could not load this kind of model"),
        (FileNotFoundError("Offloaded tensor 'lm_head.weight'"), "unsupported", "lm_head"),
        (FileNotFoundError(2, "No such file or directory", "x"), "environment", "x is not"),
        (RuntimeError("CUDA out of memory."), "out_of_memory", "out of memory"),
        (ModuleNotFoundError("No module named 'x'", name="x"), "missing_library", "x"),
    ],
)
def test_what_gptqmodel_raises_for_a_kind_of_model_names_the_kind(
    tmp_path: Path, error: Exception, kind: str, says: str
) -> None:
    config = {"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(Exception) as raised, name_model_kind(str(tmp_path), "load"):
        raise error
    failure = describe(raised.value)
    assert failure.kind == kind and says in failure.reason and "\n" not in failure.reason
    assert failure.hint


def test_of_llama_4_the_language_model_answers() -> None:
    from transformers import Llama4Config, Llama4ForConditionalGeneration

    sizes = {"hidden_size": 64, "intermediate_size": 256, "image_size": 56, "patch_size": 14}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2}
    outputs = ("vision_output_dim", "projector_input_dim", "projector_output_dim")
    vision = {**sizes, **layers, **dict.fromkeys(outputs, 64)}
    text = tiny_config("llama4_text", num_hidden_layers=2, layer_types=None, no_rope_layers=None)
    config = Llama4Config(text_config=text.to_dict(), vision_config=vision)
    part = text_model(Llama4ForConditionalGeneration(config).eval())
    assert Probe(part, "auto").first() < ROUNDING
    assert text_model(part) is part


@pytest.mark.parametrize(
    ("told", "rows"),
    [({"group_size": -1}, True), ({"group_size": None}, True), ({"group_size": 64}, False)],
)
def test_a_checkpoint_without_groups_is_known(
    tmp_path: Path, told: dict[str, int | None], rows: bool
) -> None:
    body = {"quantization_config": {"quant_method": "gptq", "bits": 4, **told}}
    (tmp_path / "config.json").write_text(json.dumps(body))
    assert _whole_rows(str(tmp_path)) is rows
