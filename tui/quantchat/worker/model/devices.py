"""Choose the device for the weights: the CPU, one GPU, or several GPUs if each is too small."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
from itertools import chain
from pathlib import Path
from typing import Any

from quantchat.common import cuda_driver
from quantchat.common.input_files import MOST_JSON, read_regular
from quantchat.common.memory_rules import WEIGHTS_SHARE
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused, on_one_line

_DRIVERS = (Path("/dev/nvidiactl"), Path("/usr/lib/wsl/lib/libcuda.so.1"))
"""Files that exist where an NVIDIA driver is installed, on Linux and in WSL."""

_NO_GPU = re.compile(r"No CUDA GPUs are available|no NVIDIA driver|no CUDA-capable device", re.I)
_TOO_OLD = re.compile(r"driver on your system is too old \(found version (\d+)\)")
"""Messages of torch if it finds no GPU, and if the driver is too old for it
(c10/cuda/CUDAFunctions.cpp, torch/csrc/cuda/Module.cpp)."""


def device_for(command: LoadModel) -> str:
    """Return the torch device for a variant, and make it torch's current device.

    For the setting `auto` it is the first GPU with enough free memory for the whole checkpoint,
    because a CUDA graph can capture a decode step only if it runs on one GPU. If no GPU has enough,
    it is the first GPU, and `room_by_gpu` then offers all GPUs. Raises Refused as `choose_device`
    does.
    """
    there = _gpus()
    if command.device != "auto" or there < 2:
        return choose_device(command.device)
    needed = weights_on_disk(command.model)
    fitting = (index for index in range(there) if needed <= _usable_bytes(index))
    return choose_device(f"cuda:{next(fitting, 0)}")


def choose_device(setting: str) -> str:
    """Return the torch device for the setting `device` of a profile, and make it the current one.

    CUDA streams, events and graphs belong to torch's current device by default. If the model ran on
    GPU 1 while GPU 0 is current, waiting for an event would wait for GPU 0, and the token would be
    read too early. Raises Refused if the device does not exist. Also raises Refused, unless the
    setting is `cpu`, if there is a GPU that torch cannot use, because the user then does not expect
    the model to run on the CPU.
    """
    import torch

    there = _gpus()
    if setting != "cpu" and not there and (refusal := _unusable()):
        raise refusal
    if setting == "cpu" or (setting == "auto" and not there):
        return "cpu"
    index = int(setting.partition(":")[2] or 0)
    if index >= there:
        found = f"{there} CUDA device{'s' if there != 1 else ''} found"
        raise Refused("unsupported", f"no device {setting}: {found}", 'use device = "auto"')
    torch.cuda.set_device(index)
    return f"cuda:{index}"


def make_current(device: Any) -> None:
    """Make `device`, the `torch.device` of a loaded model's inputs, the current one.

    After loading, another device may be current. If the first GPU was full, all weights are on the
    second; and ExLlamaV2 makes the GPU of the last layer current (q_matrix.cu).
    """
    if device.type == "cuda":
        import torch

        torch.cuda.set_device(device.index)


def ignored_gpu_note(setting: str) -> str:
    """Return a note if a variant with this `device` setting ignores a GPU; otherwise empty."""
    import torch

    if setting == "cpu" or _gpus() or torch.version.cuda or not gpu_is_shown():
        return ""
    return f"the GPU is not used: torch {torch.__version__} is built without CUDA"


def gpu_is_shown() -> bool:
    """Return whether an NVIDIA driver is installed, and GPUs are not hidden from this process."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(file.exists() for file in _DRIVERS)


def _unusable() -> Refused | None:
    """Return a Refused to raise if there is a GPU that torch cannot use; torch itself only warns.

    Return None if torch finds no GPU, as in a container with a driver but without a GPU.
    """
    import torch

    built_for = torch.version.cuda
    if not built_for or not gpu_is_shown():
        return None
    try:
        torch.cuda.init()
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if _NO_GPU.search(text):
            return None
        if found := _TOO_OLD.search(text):
            version = int(found[1])
            supported = f"{version // 1000}.{version % 1000 // 10}"
            return Refused(
                "gpu_unusable",
                cuda_driver.problem(supported, built_for),
                cuda_driver.hint(built_for),
            )
        return Refused(
            "gpu_unusable",
            f"torch for CUDA {built_for} cannot start the GPU: {on_one_line(text)}",
            'see `quantchat doctor`, or use device = "cpu"',
        )
    return None


def processor_name() -> str:
    """Return the name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def bfloat16_note(dtype: Any, device: str) -> str:
    """Return a note if the GPU only emulates bfloat16; `dtype` is the `torch.dtype` in use."""
    import torch

    if not _emulates_bfloat16(device):
        return ""
    major, minor = torch.cuda.get_device_capability(device)
    gpu = f"this GPU (compute capability {major}.{minor}) only emulates bfloat16"
    if dtype == torch.bfloat16:
        return f'{gpu}: dtype = "float16" is faster'
    return f"computes in float16, since {gpu}" if dtype == torch.float16 else ""


def fast_dtype(dtype: Any, device: str) -> Any:
    """Return `dtype`, a `torch.dtype`, or float16 if it is bfloat16 that the GPU only emulates.

    Call this only if the user has named no dtype. Activations above 65504 overflow in float16; no
    Llama model is known to have such activations.
    """
    import torch

    return torch.float16 if dtype == torch.bfloat16 and _emulates_bfloat16(device) else dtype


def _emulates_bfloat16(device: str) -> bool:
    """Return whether torch emulates bfloat16 in float32 on this GPU: compute capability < 8.0.

    torch's own function for that, `torch.cuda.is_bf16_supported`, counts emulation as support.
    """
    import torch

    return device.startswith("cuda") and torch.cuda.get_device_capability(device)[0] < 8


def room_by_gpu(command: LoadModel, device: str) -> dict[int, int]:
    """Return the bytes that weights may take on each GPU, by index of the GPU.

    Empty if all weights go to `device`: if the setting is not `auto`, if there is one GPU, or if
    the checkpoint fits into the free memory of `device`. transformers fills one GPU after the
    other, so a model that is quantized while it is loaded may still end up on one GPU.
    """
    there = _gpus()
    if command.device != "auto" or there < 2:
        return {}
    if weights_on_disk(command.model) <= _usable_bytes(int(device.partition(":")[2])):
        return {}
    return {index: _usable_bytes(index) for index in range(there)}


def _usable_bytes(index: int) -> int:
    """Return the bytes that weights may take on the GPU `index`: a share of its free memory."""
    # The query creates a CUDA context of some hundred MB on this GPU, so query only if needed.
    import torch

    try:
        return int(WEIGHTS_SHARE * torch.cuda.mem_get_info(index)[0])
    except RuntimeError:  # the GPU is full, or another process uses it exclusively
        return 0


def gpus_of(model: Any) -> list[str]:
    """Return the CUDA devices of the parameters and buffers of `model`, a `torch.nn.Module`."""
    tensors = chain(model.parameters(), model.buffers())
    found = {tensor.device.index for tensor in tensors if tensor.device.type == "cuda"}
    return [f"cuda:{index}" for index in sorted(found)]


def refuse_offloaded(model: Any) -> None:
    """Raise Refused if transformers has put a part of the model on the CPU or the disk.

    Such a model would decode at the speed of the PCIe bus or the disk.
    """
    places = getattr(model, "hf_device_map", None) or {}
    if {"cpu", "disk"} & {str(place) for place in places.values()}:
        raise weights_do_not_fit()


def weights_do_not_fit() -> Refused:
    """Return the Refused to raise if the weights do not fit on all GPUs together."""
    return Refused(
        "out_of_memory",
        "out of memory: the weights do not fit into "
        f"{WEIGHTS_SHARE:.0%} of the free memory of all GPUs",
        "try fewer bits, or end other programs on the GPUs",
    )


def weights_on_disk(model: str) -> int:
    """Return the size in bytes of the safetensors files in the folder `model`.

    If the folder has an index file, only the files that the index lists are counted.
    """
    files = set(Path(model).glob("*.safetensors"))
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        index = json.loads(read_regular(Path(model) / "model.safetensors.index.json", MOST_JSON))
        files = {Path(model) / name for name in index["weight_map"].values()}
    return sum(file.stat().st_size for file in files)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
