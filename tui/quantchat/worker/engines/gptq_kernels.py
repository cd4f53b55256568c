"""Which of GPTQModel's kernels multiplies on a GPU: one that is known to run before it is taken.

GPTQModel's own choice settles on a kernel before it knows whether that can be compiled, which
Machete wants CUTLASS from the network for and Marlin nvcc; where it cannot, the load has failed.
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

from quantchat.worker.engines.loaded import choose_dtype
from quantchat.worker.failures import Refused, on_one_line
from quantchat.worker.input_files import MOST_JSON, read_regular
from quantchat.worker.protocol import Load
from quantchat.worker.triton_needs import lacking

AUTO_ON_GPU = ("marlin", "exllama_v2", "triton", "torch")
"""What `auto` tries on a GPU, the fastest first. Not Machete: a network must not decide that."""

EXTENSIONS = {
    "machete": "machete",
    "marlin": "marlin_bf16",
    "exllama_v2": "exllamav2",
    "swordfish": "swordfish",
}
"""Kernels that are compiled on first use, and the extension that is; Marlin has one for float16,
`marlin_fp16`, too."""


@dataclass(frozen=True)
class Chosen:
    """A kernel's name, and what the user must know of the choice: why not a faster one."""

    name: str
    note: str = ""


def choose(command: Load, stage: Callable[[str], None]) -> Chosen:
    """The kernel for a checkpoint on a GPU, compiled where it must be; `stage` is told of that.

    Raises Refused where the variant names a kernel that cannot be compiled.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(command.model, trust_remote_code=command.trust_remote_code)
    dtype = _dtype(command, config)
    wish = str(command.options.get("kernel", "auto")).removeprefix("gptq_")
    if wish != "auto":
        if problem := compiled(wish, dtype, stage):
            raise Refused(
                "unsupported",
                f"GPTQModel's kernel {wish} cannot be compiled: {problem}",
                'use kernel = "auto", or see `quantchat doctor`',
            )
        return _chosen(wish)
    settings = quantization(command.model, config)
    problems: list[str] = []
    for name in AUTO_ON_GPU[:-1]:
        problem = unfit(name, settings, dtype) or compiled(name, dtype, stage)
        if not problem:
            return _chosen(name, "; ".join(problems))
        problems.append(f"not {name}: {problem}")
    return _chosen(AUTO_ON_GPU[-1], "; ".join(problems))


def _chosen(name: str, note: str = "") -> Chosen:
    """The kernel `name`, which GPTQModel makes the layers of next.

    Its kernel torch unpacks by Triton, else through torch.compile, which launches by Triton too:
    the first token would fail where that cannot build. Then torch unpacks as it is written.
    """
    if name == "torch" and lacking():
        os.environ |= {"GPTQ_TORCH_TRITON_DEQUANT": "0", "TORCHDYNAMO_DISABLE": "1"}
    return Chosen(name, note)


def quantization(model: str, config: Any) -> dict[str, Any]:
    """What a checkpoint says of its quantization: `bits`, `group_size`, `desc_act`, `sym`."""
    told = getattr(config, "quantization_config", None)
    if told is None:  # as auto-gptq saved it
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(read_regular(Path(model) / "quantize_config.json", MOST_JSON))
    body = told if isinstance(told, dict) else told.to_dict() if told is not None else {}
    return {
        "bits": int(body.get("bits") or 4),
        "group_size": int(body.get("group_size") or -1),
        "desc_act": bool(body.get("desc_act", False)),
        "sym": bool(body.get("sym", True)),
    }


def _dtype(command: Load, config: Any) -> Any:
    """The `torch.dtype` of the activations, which GPTQModel chooses where the variant does not."""
    dtype = choose_dtype(command.dtype)
    if dtype != "auto":
        return dtype
    from gptqmodel.models._const import DEVICE
    from gptqmodel.utils.model import auto_dtype

    return auto_dtype(config, DEVICE.CUDA, quant_inference=True)


def unfit(name: str, settings: dict[str, Any], dtype: Any) -> str:
    """Why the kernel is not for this checkpoint or this GPU; empty where it is."""
    from gptqmodel import BACKEND
    from gptqmodel.models._const import DEVICE
    from gptqmodel.quantization.config import FORMAT, METHOD
    from gptqmodel.utils import importer

    backend = BACKEND(f"gptq_{name}")
    kernel = importer.get_kernel_for_backend(backend, METHOD.GPTQ, FORMAT.GPTQ)
    fine, error = ask(kernel, name, settings, dtype, DEVICE.CUDA)
    return "" if fine else _short(str(error))


def ask(
    kernel: Any, name: str, settings: dict[str, Any], dtype: Any, device: Any
) -> tuple[bool, Exception | None]:
    """Whether the layer class `kernel`, called `name`, does that on a `DEVICE`, and why not.

    Nothing is compiled: its own `validate` would, to see whether an extension can be loaded.
    """
    import torch

    validate = kernel._validate if name in EXTENSIONS else kernel.validate
    fine, error = validate(**settings, pack_dtype=torch.int32, dtype=dtype, device=device)
    return fine, error


def compiled(name: str, dtype: Any, stage: Callable[[str], None]) -> str:
    """Compile the kernel's extension if it is not yet; why that failed, empty where it did not.

    Triton compiles by itself later: why it could not.
    """
    import torch
    from gptqmodel import extension

    if name == "triton":
        return lacking()
    wanted = EXTENSIONS.get(name)
    if wanted is None:
        return ""
    if name == "marlin" and dtype == torch.float16:
        wanted = "marlin_fp16"
    stage(f"compiling the kernel {name}, if it is not yet")
    if extension.is_available(wanted):
        return ""
    return _short(extension.error(wanted) or "its build said nothing; see the worker's log")


def _short(text: str) -> str:
    return on_one_line(re.sub(r"<class '[\w.]*?(\w+)'>", r"\1", text))
