"""Tries GPTQModel's kernels: runs a small layer, or checks whether a kernel can be compiled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quantchat.common.gptq_kernels import EXTENSIONS, GPTQ_ON_GPU
from quantchat.wire.jobs import (
    COMPILES,
    MUST_COMPILE,
    READY,
    UNUSABLE,
    BuildTools,
    Kernel,
    KernelState,
)
from quantchat.worker.loaders.gptq_kernels import supports
from quantchat.worker.loaders.kernel_build import compiled_before
from quantchat.worker.loaders.probe import WIDTH, check_output, probe_dtype, short


def kernels(device: str, tools: BuildTools) -> list[Kernel]:
    """Return each kernel for GPTQ checkpoints and its state, in GPTQModel's order of preference.

    `tools` are the installed build tools. Raises whatever importing GPTQModel raises.
    """
    from gptqmodel.quantization.config import FORMAT, METHOD
    from gptqmodel.utils import importer

    chosen_from = importer.AUTO_BACKEND_KERNEL_MAPPING[METHOD.GPTQ][FORMAT.GPTQ]
    order = importer.BACKEND_TO_METHOD_FORMAT_MAPPING[METHOD.GPTQ][FORMAT.GPTQ]
    found = []
    for backend in order:
        kernel_class = importer.get_kernel_for_backend(backend, METHOD.GPTQ, FORMAT.GPTQ)
        name = backend.value.removeprefix("gptq_")
        state, detail = _gptq(kernel_class, name, device, tools)
        by_itself = name in GPTQ_ON_GPU if device != "cpu" else backend in chosen_from
        found.append(Kernel("gptqmodel", name, state, detail, by_itself=by_itself))
    return _with_auto(found)


def _with_auto(found: list[Kernel]) -> list[Kernel]:
    """Return `found` with `auto` set for the kernel that `kernel = "auto"` chooses."""
    for place, kernel in enumerate(found):
        if kernel.by_itself and kernel.state != UNUSABLE:
            return [*found[:place], replace(kernel, auto=True), *found[place + 1 :]]
    return found


def _gptq(kernel_class: Any, name: str, device: str, tools: BuildTools) -> tuple[KernelState, str]:
    from gptqmodel.models._const import DEVICE

    device_type = DEVICE.CUDA if device.startswith("cuda") else DEVICE.CPU
    supported = kernel_class.SUPPORTS_DEVICES
    if DEVICE.ALL not in supported and device_type not in supported:
        return UNUSABLE, f"for {' and '.join(one.value for one in supported)} only"
    settings = {"bits": 4, "group_size": 128, "desc_act": False, "sym": True}
    extension = EXTENSIONS.get(name)
    try:
        fine, error = supports(kernel_class, name, settings, probe_dtype(device), device_type)
        if not fine:
            return UNUSABLE, short(error)
        if extension:
            return _compiled(extension, tools)
        _run_gptq(kernel_class, device)
    except Exception as error:  # noqa: BLE001 - any error means that the kernel does not run
        return UNUSABLE, short(error)
    return READY, ""


def _compiled(name: str, tools: BuildTools) -> tuple[KernelState, str]:
    """Return whether the extension `name` was compiled before or can be compiled, and a detail."""
    from gptqmodel import extension as extensions

    extension = extensions._EXTENSION_SPECS_BY_NAME[name].resolve()
    if compiled_before(extension):
        return READY, "compiled before; compiled again if torch or the GPU changed"
    if tools.lacking:
        return UNUSABLE, f"{MUST_COMPILE}, and {tools.lacking}"
    needs = ", and CUTLASS from the network" if name in ("machete", "swordfish") else ""
    return COMPILES, f"with nvcc {tools.nvcc_release}{needs}"


def _run_gptq(kernel_class: Any, device: str) -> None:
    """Build a layer with constant weights, in the way in which a model is loaded, and run it."""
    import torch

    dtype = probe_dtype(device)
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
        check_output(layer(torch.ones(1, WIDTH, dtype=dtype, device=device)))
