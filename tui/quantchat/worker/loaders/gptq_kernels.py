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

from quantchat.common import cuda_toolkit
from quantchat.common.gptq_kernels import AUTO_ON_GPU, EXTENSIONS, slow
from quantchat.common.input_files import MOST_JSON, read_regular
from quantchat.common.triton_needs import lacking
from quantchat.wire.messages import Load
from quantchat.worker.failures import Refused, on_one_line
from quantchat.worker.loaders.kernel_build import Building, built
from quantchat.worker.model.devices import fast_dtype
from quantchat.worker.model.loaded import choose_dtype


@dataclass(frozen=True)
class Chosen:
    """A kernel's name, and what the user must know of the choice: why not a faster one."""

    name: str
    dtype: Any
    """The `torch.dtype` of the activations, which it was chosen for."""
    note: str = ""
    slow: str = ""
    """Why figures of its speed mislead, and the cure; empty for a fast one."""


def choose(command: Load, stage: Callable[[str], None], building: Building) -> Chosen:
    """The kernel for a checkpoint on a GPU, compiled where it must be, of which `building` hears.

    Raises Refused where the variant names a kernel that cannot be compiled.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(command.model, trust_remote_code=command.trust_remote_code)
    dtype = _dtype(command, config)
    wish = str(command.options.get("kernel", "auto")).removeprefix("gptq_")
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
    cure = "no faster kernel takes this checkpoint on this GPU"
    for name in AUTO_ON_GPU[:-1]:
        problem = unfit(name, settings, dtype)
        if not problem:
            problem = built(name, dtype, stage, building)
            if not problem:
                return _chosen(name, dtype, "; ".join(problems), cure)
            if name in EXTENSIONS:
                cure = f"{cuda_toolkit.INSTALL}, then load it again; see `quantchat doctor`"
        problems.append(f"not {name}: {problem}")
    return _chosen(AUTO_ON_GPU[-1], dtype, "; ".join(problems), cure)


def _chosen(name: str, dtype: Any, note: str = "", cure: str = "") -> Chosen:
    """The kernel `name`, which GPTQModel makes the layers of next.

    Its kernel torch unpacks by Triton, else through torch.compile, which launches by Triton too:
    the first token would fail where that cannot build. Then torch unpacks as it is written.
    """
    if name == "torch" and lacking():
        os.environ |= {"GPTQ_TORCH_TRITON_DEQUANT": "0", "TORCHDYNAMO_DISABLE": "1"}
    return Chosen(name, dtype, note, slow(name, cure))


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
    """The `torch.dtype` of the activations: GPTQModel's choice where the variant makes none."""
    dtype = choose_dtype(command.dtype)
    if dtype != "auto":
        return dtype
    from gptqmodel.models._const import DEVICE
    from gptqmodel.utils.model import auto_dtype

    return fast_dtype(auto_dtype(config, DEVICE.CUDA, quant_inference=True), "cuda")


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


def _short(text: str) -> str:
    return on_one_line(re.sub(r"<class '[\w.]*?(\w+)'>", r"\1", text))
