"""Choose the GPTQModel kernel for a GPU; compile it before choosing it.

GPTQModel itself chooses a kernel before it knows whether the kernel can be compiled: Machete needs
CUTLASS from the network, and Marlin needs nvcc. If compiling fails, the load fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat.common import cuda_toolkit
from quantchat.common.gptq_kernels import AUTO_ON_GPU, AWQ_ON_GPU, EXTENSIONS, slow
from quantchat.common.input_files import MOST_JSON, read_regular
from quantchat.common.triton_needs import lacking
from quantchat.wire.messages import Load
from quantchat.worker.failures import Refused, on_one_line
from quantchat.worker.loaders.kernel_build import Building, built
from quantchat.worker.model.devices import fast_dtype
from quantchat.worker.model.loaded import choose_dtype


@dataclass(frozen=True)
class Chosen:
    """The chosen kernel, and notes for the user on why it is not a faster one."""

    name: str
    dtype: Any
    """The `torch.dtype` of the activations for which the kernel was chosen."""
    note: str = ""
    slow: str = ""
    """Why its measured speed is misleading, and the remedy; empty for a fast kernel."""


def method_of(command: Load) -> str:
    """Return GPTQModel's name of the quantization method: `gptq` or `awq`."""
    return "gptq" if command.engine == "autoround" else command.engine


def choose(command: Load, stage: Callable[[str], None], building: Building) -> Chosen:
    """Choose the kernel for a checkpoint on a GPU, and compile it if necessary.

    Calls `building` with the compiler's progress. Raises Refused if the variant names a kernel that
    cannot be compiled.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(command.model, trust_remote_code=command.trust_remote_code)
    dtype = _dtype(command, config)
    family = method_of(command)
    wish = str(command.options.get("kernel", "auto")).removeprefix(f"{family}_")
    if wish != "auto":
        if problem := built(wish, dtype, stage, building):
            raise Refused(
                "unsupported",
                f"GPTQModel's kernel {wish} cannot be compiled: {problem}",
                f'{cuda_toolkit.INSTALL}, or use kernel = "auto"; see `quantchat doctor`',
            )
        return _chosen(wish, dtype, cure='use kernel = "auto"')
    settings = quantization(command.model, config)
    problems: list[str] = []
    cure = "no faster kernel supports this checkpoint on this GPU"
    tried = AUTO_ON_GPU if family == "gptq" else AWQ_ON_GPU
    for name in tried[:-1]:
        problem = unfit(name, settings, dtype, family)
        if not problem:
            problem = built(name, dtype, stage, building)
            if not problem:
                return _chosen(name, dtype, "; ".join(problems), cure)
            if name in EXTENSIONS:
                cure = f"{cuda_toolkit.INSTALL}, then load it again; see `quantchat doctor`"
        problems.append(f"not {name}: {problem}")
    return _chosen(tried[-1], dtype, "; ".join(problems), cure)


def _chosen(name: str, dtype: Any, note: str = "", cure: str = "") -> Chosen:
    """Return the kernel `name` as chosen; set up GPTQModel for its use.

    GPTQModel's kernel `torch` unpacks weights with Triton or else torch.compile, which needs Triton
    too. If Triton cannot build launchers here, the first token would fail: switch both off.
    """
    if name == "torch" and lacking():
        os.environ |= {"GPTQ_TORCH_TRITON_DEQUANT": "0", "TORCHDYNAMO_DISABLE": "1"}
    return Chosen(name, dtype, note, slow(name, cure))


def quantization(model: str, config: Any) -> dict[str, Any]:
    """Return the checkpoint's `bits`, `group_size`, `desc_act` and `sym`, with GPTQ's defaults."""
    told = getattr(config, "quantization_config", None)
    if told is None:  # auto-gptq saves it in a separate file
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(read_regular(Path(model) / "quantize_config.json", MOST_JSON))
    body = told if isinstance(told, dict) else told.to_dict() if told is not None else {}
    return {
        "bits": int(body.get("bits") or 4),
        "group_size": int(body.get("group_size") or -1),
        "desc_act": bool(body.get("desc_act", False)),
        "sym": bool(body.get("sym", not body.get("zero_point", False))),  # AWQ names its zeros
    }


def _dtype(command: Load, config: Any) -> Any:
    """Return the `torch.dtype` of the activations; for `auto`, GPTQModel's choice.

    A GPU that only emulates bfloat16 gets float16 (`fast_dtype`).
    """
    dtype = choose_dtype(command.dtype)
    if dtype != "auto":
        return dtype
    from gptqmodel.models._const import DEVICE
    from gptqmodel.utils.model import auto_dtype

    return fast_dtype(auto_dtype(config, DEVICE.CUDA, quant_inference=True), "cuda")


def unfit(name: str, settings: dict[str, Any], dtype: Any, family: str) -> str:
    """Return why the kernel does not support this checkpoint or GPU; empty if it does."""
    from gptqmodel import BACKEND
    from gptqmodel.models._const import DEVICE
    from gptqmodel.quantization.config import FORMAT, METHOD
    from gptqmodel.utils import importer

    backend = BACKEND(f"{family}_{name}")
    layout = FORMAT.GPTQ if family == "gptq" else FORMAT.GEMM
    kernel = importer.get_kernel_for_backend(backend, METHOD(family), layout)
    fine, error = ask(kernel, name, settings, dtype, DEVICE.CUDA)
    return "" if fine else _short(str(error))


def ask(
    kernel: Any, name: str, settings: dict[str, Any], dtype: Any, device: Any
) -> tuple[bool, Exception | None]:
    """Return whether the layer class `kernel` of kernel `name` supports the settings, and why not.

    `device` is a GPTQModel `DEVICE`. Compiles nothing, unlike the class's own `validate`, which
    checks whether its extension can be loaded.
    """
    import torch

    validate = kernel._validate if name in EXTENSIONS else kernel.validate
    fine, error = validate(**settings, pack_dtype=torch.int32, dtype=dtype, device=device)
    return fine, error


def _short(text: str) -> str:
    return on_one_line(re.sub(r"<class '[\w.]*?(\w+)'>", r"\1", text))
