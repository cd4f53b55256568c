"""Tries kernels one by one: builds a small layer and runs it, or asks whether that is possible."""

from __future__ import annotations

from typing import Any

from quantchat.common.gptq_kernels import AUTO_ON_GPU, EXTENSIONS
from quantchat.wire.jobs import (
    COMPILES,
    MUST_COMPILE,
    READY,
    UNUSABLE,
    BuildTools,
    Kernel,
    KernelState,
)
from quantchat.worker.failures import on_one_line
from quantchat.worker.loaders.gptq_kernels import ask
from quantchat.worker.loaders.kernel_build import compiled_before

WIDTH = 256
"""Inputs and outputs of the test layer: a multiple of every kernel's tile and group size."""


# ------------------------------------------------------------ bitsandbytes


def probe_bitsandbytes(device: str) -> list[Kernel]:
    """Run a layer of each type on `device`. Raises whatever the library's import raises."""
    import bitsandbytes
    from bitsandbytes.functional import has_avx512bf16

    library = type(bitsandbytes.cextension.lib).__name__
    how = "CUDA library" if device.startswith("cuda") else "processor, without AVX512-BF16"
    if device == "cpu" and has_avx512bf16():
        how = "processor, AVX512-BF16"
    if "ErrorHandler" in library:
        how = "its native library cannot be loaded"
    return [_bitsandbytes(kind, device, how) for kind in ("nf4", "fp4", "int8")]


def _bitsandbytes(kind: str, device: str, how: str) -> Kernel:
    import torch
    from bitsandbytes import nn

    dtype = _dtype(device)
    try:
        layer = (
            nn.Linear8bitLt(WIDTH, WIDTH, bias=False, has_fp16_weights=False)
            if kind == "int8"
            else nn.Linear4bit(WIDTH, WIDTH, bias=False, compute_dtype=dtype, quant_type=kind)
        )
        layer = layer.to(dtype).to(device).eval()
        with torch.inference_mode():
            _check(layer(torch.ones(1, WIDTH, dtype=dtype, device=device)))
    except Exception as error:  # noqa: BLE001 - any error means that it does not run
        return Kernel("bitsandbytes", kind, UNUSABLE, f"{how}: {_short(error)}")
    return Kernel("bitsandbytes", kind, READY, how)


# ------------------------------------------------------------ GPTQModel


def gptq_kernels(device: str, tools: BuildTools) -> list[Kernel]:
    """Return each kernel for GPTQ checkpoints, in the order in which `auto` considers them.

    `tools` are the installed build tools. Raises whatever the library's import raises.
    """
    from gptqmodel.quantization.config import FORMAT, METHOD
    from gptqmodel.utils import importer

    chosen_from = importer.AUTO_BACKEND_KERNEL_MAPPING[METHOD.GPTQ][FORMAT.GPTQ]
    order = importer.BACKEND_TO_METHOD_FORMAT_MAPPING[METHOD.GPTQ][FORMAT.GPTQ]
    kernels = []
    for backend in order:
        kernel_class = importer.get_kernel_for_backend(backend, METHOD.GPTQ, FORMAT.GPTQ)
        name = backend.value.removeprefix("gptq_")
        state, detail = _gptq(kernel_class, name, device, tools)
        by_itself = name in AUTO_ON_GPU if device != "cpu" else backend in chosen_from
        kernels.append(Kernel("gptqmodel", name, state, detail, by_itself=by_itself))
    return kernels


def _gptq(kernel_class: Any, name: str, device: str, tools: BuildTools) -> tuple[KernelState, str]:
    from gptqmodel.models._const import DEVICE

    process_tree = DEVICE.CUDA if device.startswith("cuda") else DEVICE.CPU
    supported = kernel_class.SUPPORTS_DEVICES
    if DEVICE.ALL not in supported and process_tree not in supported:
        return UNUSABLE, f"for {' and '.join(one.value for one in supported)} only"
    settings = {"bits": 4, "group_size": 128, "desc_act": False, "sym": True}
    extension = EXTENSIONS.get(name)
    try:
        fine, error = ask(kernel_class, name, settings, _dtype(device), process_tree)
        if not fine:
            return UNUSABLE, _short(error)
        if extension:
            return _compiled(extension, tools)
        _run_gptq(kernel_class, device)
    except Exception as error:  # noqa: BLE001 - any error means that it does not run
        return UNUSABLE, _short(error)
    return READY, ""


def _compiled(name: str, tools: BuildTools) -> tuple[KernelState, str]:
    """Return whether an extension was compiled before, or can be compiled."""
    from gptqmodel import extension as extensions

    extension = extensions._EXTENSION_SPECS_BY_NAME[name].resolve()
    if compiled_before(extension):
        return READY, "compiled before; compiled again if torch or the GPU changed"
    if tools.lacking:
        return UNUSABLE, f"{MUST_COMPILE}, and {tools.lacking}"
    needs = ", and CUTLASS from the network" if name in ("machete", "swordfish") else ""
    return COMPILES, f"with nvcc {tools.nvcc_release}{needs}"


def _run_gptq(kernel_class: Any, device: str) -> None:
    """Build a layer with constant weights in the same way as loading does, and run it."""
    import torch

    dtype = _dtype(device)
    layer = kernel_class(
        bits=4,
        group_size=128,
        desc_act=False,
        sym=True,
        in_features=WIDTH,
        out_features=WIDTH,
        bias=False,
        pack_dtype=torch.int32,
        register_buffers=True,
        dtype=dtype,
    )
    with torch.no_grad():
        for name, tensor in [*layer.named_buffers(), *layer.named_parameters()]:
            if tensor.dtype.is_floating_point:
                tensor.fill_(0.01)
            elif name in ("qweight", "qzeros"):
                tensor.fill_(0x77777777)
    layer = layer.to(device).eval()
    layer.post_init()
    with torch.inference_mode():
        _check(layer(torch.ones(1, WIDTH, dtype=dtype, device=device)))


# ------------------------------------------------------------


def _dtype(device: str) -> Any:
    import torch

    modern = device == "cpu" or torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if modern else torch.float16


def _check(output: Any) -> None:
    if output.shape != (1, WIDTH) or not bool(output.isfinite().all()):
        raise ArithmeticError("it ran, but its results are no numbers")


def _short(error: BaseException | None) -> str:
    return on_one_line(str(error)) or type(error).__name__
