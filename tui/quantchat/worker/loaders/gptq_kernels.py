"""Choose the fastest GPTQModel kernel that works on a GPU, and compile it.

GPTQModel itself chooses a kernel before it knows whether the kernel can be compiled (Machete needs
CUTLASS from the network, Marlin needs nvcc), and if compiling fails, it cannot load the model. So
this module compiles a kernel before it chooses it, and otherwise tries the next kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat.common import cuda_toolkit
from quantchat.common.gptq_kernels import AWQ_ON_GPU, EXTENSIONS, GPTQ_ON_GPU, slow_kernel_note
from quantchat.common.input_files import MOST_JSON, read_regular
from quantchat.common.triton_needs import triton_problem
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused, on_one_line
from quantchat.worker.loaders.kernel_build import Building, built
from quantchat.worker.model.devices import fast_dtype
from quantchat.worker.model.files_check import folder_of
from quantchat.worker.model.loaded import choose_dtype


@dataclass(frozen=True)
class Chosen:
    """The chosen kernel, its dtype, and notes for the user."""

    name: str
    dtype: Any
    """The `torch.dtype` of the activations for which the kernel was chosen."""
    note: str = ""
    """Why faster kernels were not chosen."""
    slow: str = ""
    """Why the measured speed is misleading, and what to do; empty for a fast kernel."""


def method_of(command: LoadModel) -> str:
    """Return the method whose format the checkpoint has, as GPTQModel names it: `gptq` or `awq`."""
    if command.engine != "autoround":
        return command.engine
    found = folder_of(command.model).quantization or {}
    return "awq" if found.get("quant_method") == "awq" else "gptq"


def choose(command: LoadModel, stage: Callable[[str], None], building: Building) -> Chosen:
    """Choose the kernel for a checkpoint on a GPU, and compile it if necessary.

    Calls `stage` when compiling or loading a kernel begins, and `building` with the compiler's
    progress. Raises Refused if the variant names a kernel that cannot be compiled.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(command.model, trust_remote_code=command.trust_remote_code)
    dtype = _dtype(command, config)
    family = method_of(command)
    requested = command.option("kernel", "auto").removeprefix(f"{family}_")
    if requested != "auto":
        if problem := built(requested, dtype, stage, building):
            raise Refused(
                "unsupported",
                f"GPTQModel's kernel {requested} cannot be compiled: {problem}",
                f'{_install()}, or use kernel = "auto"; see `quantchat doctor`',
            )
        return _chosen(requested, dtype, hint='use kernel = "auto"')
    settings = quantization(command.model, config)
    problems: list[str] = []
    hint = "no faster kernel supports this checkpoint on this GPU"
    tried = GPTQ_ON_GPU if family == "gptq" else AWQ_ON_GPU
    for name in tried[:-1]:
        problem = unsupported_reason(name, settings, dtype, family)
        if not problem:
            problem = built(name, dtype, stage, building)
            if not problem:
                return _chosen(name, dtype, "; ".join(problems), hint)
            if name in EXTENSIONS:
                hint = f"{_install()}, then load it again; see `quantchat doctor`"
        problems.append(f"not {name}: {problem}")
    return _chosen(tried[-1], dtype, "; ".join(problems), hint)


def _install() -> str:
    import torch

    return cuda_toolkit.how_to_install(torch.version.cuda)


def _chosen(name: str, dtype: Any, note: str = "", hint: str = "") -> Chosen:
    """Return the kernel `name` as the chosen kernel, and set up GPTQModel for it.

    GPTQModel's kernel `torch` unpacks weights with Triton, or with torch.compile, which needs
    Triton too. If Triton cannot launch kernels here, both are switched off, because otherwise
    computing the first token would fail.

    `note` says why faster kernels were not chosen; `hint` says what to do if the kernel is slow.
    """
    if name == "torch" and triton_problem():
        os.environ |= {"GPTQ_TORCH_TRITON_DEQUANT": "0", "TORCHDYNAMO_DISABLE": "1"}
    return Chosen(name, dtype, note, slow_kernel_note(name, hint))


def quantization(model: str, config: Any) -> dict[str, int]:
    """Return the checkpoint's `bits`, `group_size`, `desc_act` and `sym`, with GPTQ's defaults."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:  # auto-gptq saves the settings in a separate file
        with contextlib.suppress(OSError, ValueError):
            stored = json.loads(read_regular(Path(model) / "quantize_config.json", MOST_JSON))
    body = stored if isinstance(stored, dict) else stored.to_dict() if stored is not None else {}
    return {
        "bits": int(body.get("bits") or 4),
        "group_size": int(body.get("group_size") or -1),
        "desc_act": bool(body.get("desc_act", False)),
        # AWQ's configs have `zero_point` in place of `sym`.
        "sym": bool(body.get("sym", not body.get("zero_point", False))),
    }


def _dtype(command: LoadModel, config: Any) -> Any:
    """Return the `torch.dtype` of the activations; for `auto`, GPTQModel's choice.

    In place of a bfloat16 that the GPU only emulates, `auto` gives float16 (`fast_dtype`).
    """
    dtype = choose_dtype(command.dtype)
    if dtype != "auto":
        return dtype
    from gptqmodel.models._const import DEVICE
    from gptqmodel.utils.model import auto_dtype

    return fast_dtype(auto_dtype(config, DEVICE.CUDA, quant_inference=True), "cuda")


def unsupported_reason(name: str, settings: Mapping[str, int], dtype: Any, family: str) -> str:
    """Return why the kernel `name` does not support this checkpoint or GPU; empty if it does.

    `settings` are those of `quantization`; `dtype` is the `torch.dtype` of the activations;
    `family` is the method, `gptq` or `awq`.
    """
    from gptqmodel import BACKEND
    from gptqmodel.models._const import DEVICE
    from gptqmodel.quantization.config import FORMAT, METHOD
    from gptqmodel.utils import importer

    backend = BACKEND(f"{family}_{name}")
    layout = FORMAT.GPTQ if family == "gptq" else FORMAT.GEMM
    kernel = importer.get_kernel_for_backend(backend, METHOD(family), layout)
    supported, error = supports(kernel, name, settings, dtype, DEVICE.CUDA)
    return "" if supported else _short(str(error))


def supports(
    kernel: Any, name: str, settings: Mapping[str, int], dtype: Any, device: Any
) -> tuple[bool, Exception | None]:
    """Return whether a kernel supports the settings, and if not, the reason as an exception.

    `name` is the kernel, `kernel` its layer class in GPTQModel, and `device` a member of
    GPTQModel's enum `DEVICE`. For a kernel with an extension, this calls the class method
    `_validate`, because `validate` also checks whether the extension can be loaded, and would
    compile it.
    """
    import torch

    validate = kernel._validate if name in EXTENSIONS else kernel.validate
    supported, error = validate(**settings, pack_dtype=torch.int32, dtype=dtype, device=device)
    return supported, error


def _short(text: str) -> str:
    return on_one_line(re.sub(r"<class '[\w.]*?(\w+)'>", r"\1", text))
