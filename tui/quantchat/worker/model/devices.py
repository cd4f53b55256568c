"""On which device the weights lie: one, or several GPUs where one is too small for them."""

from __future__ import annotations

import contextlib
import json
import os
import re
from itertools import chain
from pathlib import Path
from typing import Any

from quantchat.common import cuda_driver
from quantchat.common.input_files import MOST_JSON, read_regular
from quantchat.common.memory_rules import SHARE
from quantchat.wire.messages import Load
from quantchat.worker.failures import Refused, on_one_line

_DRIVERS = (Path("/dev/nvidiactl"), Path("/usr/lib/wsl/lib/libcuda.so.1"))
"""What is there where an NVIDIA driver is, on Linux and in WSL."""

_NO_GPU = re.compile(r"No CUDA GPUs are available|no NVIDIA driver|no CUDA-capable device", re.I)
_TOO_OLD = re.compile(r"driver on your system is too old \(found version (\d+)\)")
"""torch's words (c10/cuda/CUDAFunctions.cpp, torch/csrc/cuda/Module.cpp)."""


def device_for(command: Load) -> str:
    """Return the torch device for a variant, and make it the current one. Raises Refused.

    `auto` takes the first GPU that has room for the whole checkpoint: on one GPU the step can be
    captured, over several it cannot. Where none has, it is the first of all (see `rooms`).
    """
    there = _gpus()
    if command.device != "auto" or there < 2:
        return choose_device(command.device)
    needed = weights_on_disk(command.model)
    fitting = (index for index in range(there) if needed <= _room(index))
    return choose_device(f"cuda:{next(fitting, 0)}")


def choose_device(wish: str) -> str:
    """Return the torch device for a profile's `device`, and make it the current one.

    Streams, events and graphs are made for the current device unless they are told another one: a
    token that is read after an event of GPU 0 would be read too early from GPU 1. Raises Refused
    where the device is not there, and for `auto` too where there is a GPU that torch cannot start:
    a run on the CPU is not what was asked for then.
    """
    import torch

    there = _gpus()
    if wish != "cpu" and not there and (refusal := _unusable()):
        raise refusal
    if wish == "cpu" or (wish == "auto" and not there):
        return "cpu"
    index = int(wish.partition(":")[2] or 0)
    if index >= there:
        found = f"{there} CUDA device{'s' if there != 1 else ''} found"
        raise Refused("unsupported", f"no device {wish}: {found}", 'use device = "auto"')
    torch.cuda.set_device(index)
    return f"cuda:{index}"


def make_current(device: Any) -> None:
    """Make the GPU where a loaded model's inputs lie, a `torch.device`, the current one.

    It may be another one than was chosen: all weights lie on the second GPU where the first is full
    already, and ExLlamaV2 leaves that of its last layer the current one (q_matrix.cu).
    """
    if device.type == "cuda":
        import torch

        torch.cuda.set_device(device.index)


def passed_over(wish: str) -> str:
    """Why a GPU that is there is not used by a variant of the device `wish`; empty where it is."""
    import torch

    if wish == "cpu" or _gpus() or torch.version.cuda or not _gpu_is_shown():
        return ""
    return f"the GPU is not used: torch {torch.__version__} is built without CUDA"


def _gpu_is_shown() -> bool:
    """Whether a driver is here, and its GPUs are not hidden from this process."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(cuda_driver.exists() for cuda_driver in _DRIVERS)


def _unusable() -> Refused | None:
    """What to raise where there is a GPU and torch's CUDA cannot start; torch only warns of it.

    None where torch finds none, as in a container that was given a driver and no GPU.
    """
    import torch

    built_for = torch.version.cuda
    if not built_for or not _gpu_is_shown():
        return None
    try:
        torch.cuda.init()
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if _NO_GPU.search(text):
            return None
        if found := _TOO_OLD.search(text):
            version = int(found[1])
            takes = f"{version // 1000}.{version % 1000 // 10}"
            return Refused(
                "gpu_unusable", cuda_driver.complaint(takes, built_for), cuda_driver.cure(built_for)
            )
        return Refused(
            "gpu_unusable",
            f"torch for CUDA {built_for} cannot start the GPU: {on_one_line(text)}",
            'see `quantchat doctor`, or use device = "cpu"',
        )
    return None


def emulated(dtype: Any, device: str) -> str:
    """What to know of `dtype`, a `torch.dtype`, on this device; empty where there is nothing."""
    import torch

    if not _emulates_bfloat16(device):
        return ""
    major, minor = torch.cuda.get_device_capability(device)
    gpu = f"this GPU (compute capability {major}.{minor}) only emulates bfloat16"
    if dtype == torch.bfloat16:
        return f'{gpu}: dtype = "float16" is faster'
    return f"computes in float16, since {gpu}" if dtype == torch.float16 else ""


def fast_dtype(dtype: Any, device: str) -> Any:
    """Return `dtype`, a `torch.dtype`; float16 for a bfloat16 that the GPU would only emulate.

    For a dtype that nobody named. Activations above 65504 overflow in float16; no Llama is known
    to have any.
    """
    import torch

    return torch.float16 if dtype == torch.bfloat16 and _emulates_bfloat16(device) else dtype


def _emulates_bfloat16(device: str) -> bool:
    """Whether it is a GPU before compute capability 8.0: torch converts to float32 and back there.

    torch itself says of each GPU that it takes bfloat16.
    """
    import torch

    return device.startswith("cuda") and torch.cuda.get_device_capability(device)[0] < 8


def rooms(command: Load, device: str) -> dict[int, int]:
    """Bytes for weights on each GPU, by its number; empty where they are to lie on `device` alone.

    They may lie on several with `auto`, where the checkpoint is larger than `device` has room for.
    What is quantized while it is loaded may still fit on one.
    """
    there = _gpus()
    if command.device != "auto" or there < 2:
        return {}
    if weights_on_disk(command.model) <= _room(int(device.partition(":")[2])):
        return {}
    return {index: _room(index) for index in range(there)}


def _room(index: int) -> int:
    # To be asked costs a context, some hundred MB: no GPU is asked before it is needed.
    import torch

    try:
        return int(SHARE * torch.cuda.mem_get_info(index)[0])
    except RuntimeError:  # full to the last byte, or another's alone
        return 0


def gpus_of(model: Any) -> list[str]:
    """The CUDA devices that hold parameters or buffers of `model`, a `torch.nn.Module`, sorted."""
    tensors = chain(model.parameters(), model.buffers())
    found = {tensor.device.index for tensor in tensors if tensor.device.type == "cuda"}
    return [f"cuda:{index}" for index in sorted(found)]


def refuse_offloaded(model: Any) -> None:
    """Refuse a model that transformers has put in part elsewhere than on the GPUs.

    It would decode at the speed of a disk. Raises Refused.
    """
    places = getattr(model, "hf_device_map", None) or {}
    if {"cpu", "disk"} & {str(place) for place in places.values()}:
        raise too_small()


def too_small() -> Refused:
    """What to raise where the weights fit on no GPU, and not on all of them together."""
    return Refused(
        "out_of_memory",
        f"out of memory: the weights do not fit in {SHARE:.0%} of what all GPUs have free",
        "try fewer bits, or end what else uses the GPUs",
    )


def weights_on_disk(model: str) -> int:
    """Bytes of the safetensors in the folder `model`: of those the index names, if there is one."""
    files = set(Path(model).glob("*.safetensors"))
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        index = json.loads(read_regular(Path(model) / "model.safetensors.index.json", MOST_JSON))
        files = {Path(model) / name for name in index["weight_map"].values()}
    return sum(file.stat().st_size for file in files)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
