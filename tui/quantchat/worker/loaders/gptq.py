"""Load GPTQ (Frantar et al. 2022) and AWQ checkpoints with GPTQModel and its kernels."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Any

from quantchat.common import cuda_toolkit
from quantchat.wire.messages import WEIGHTS, LoadModel
from quantchat.worker.failures import Refused, describe, on_one_line
from quantchat.worker.import_pruning import OPTIONAL
from quantchat.worker.loaders import gptq_kernels
from quantchat.worker.loaders.gptq_probe import kernels as kernels
from quantchat.worker.loaders.kernel_build import Building
from quantchat.worker.model.devices import (
    device_for,
    room_by_gpu,
    weights_do_not_fit,
    weights_on_disk,
)
from quantchat.worker.model.files_check import folder_of, refuse_pickled
from quantchat.worker.model.loaded import Loaded, choose_dtype, commonest_class
from quantchat.worker.model.tokenizer import fast_tokenizer

UNUSED = OPTIONAL
COMPILES = True


def load(
    command: LoadModel, stage: Callable[[str], None], building: Building = lambda progress: None
) -> Loaded:
    """Load a GPTQ or AWQ checkpoint, whichever library wrote it.

    Calls `building` with the progress of compiling a kernel. `options`: `kernel`, which is `auto`
    or a value of GPTQModel's enum `BACKEND`, with or without the prefix `gptq_` or `awq_`. Raises
    Refused for an unknown kernel, a checkpoint without GPTQ or AWQ layers, or a model that
    GPTQModel cannot load.
    """
    import torch

    if torch.version.cuda and torch.cuda.is_available():
        cuda_toolkit.use(torch.version.cuda)  # choose nvcc before GPTQModel looks for it
    # Imported before the stage WEIGHTS, so that the time counts as import.
    from accelerate.hooks import remove_hook_from_submodules
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear

    device = device_for(command)
    kernel_option, note, slow = command.option("kernel", "auto"), "", ""
    family = gptq_kernels.method_of(command)
    backend = _backend(family, kernel_option, BACKEND)
    refuse_pickled(command.model, has_option=False)
    tokenizer = fast_tokenizer(command)
    dtype = choose_dtype(command.dtype)
    if device.startswith("cuda"):
        chosen = gptq_kernels.choose(command, stage, building)
        dtype = chosen.dtype
        backend, note, slow = _backend(family, chosen.name, BACKEND), chosen.note, chosen.slow
    elif kernel_option == "auto" and _whole_rows(command.model):
        # For such a checkpoint on a CPU, GPTQModel 7.6 would choose its fused kernel, which fails
        # at the first matrix product.
        backend = _backend(family, "torch", BACKEND)
    stage(WEIGHTS)
    more: dict[str, Any] = {}
    if command.attention != "auto":
        more["attn_implementation"] = command.attention
    single = _single_device(command, device)
    on_device = contextlib.nullcontext() if single is None else _only_on(single)
    with on_device, in_memory(), name_model_kind(command.model, "load"):
        model = text_model(
            GPTQModel.load(
                command.model,
                device=single,
                backend=backend,
                dtype=dtype,
                trust_remote_code=command.trust_remote_code,
                **more,
            ).model
        )
    if single is not None:
        # accelerate's hooks move the inputs of a layer to its device. With a single device they
        # only cost time, because they check the inputs of each layer in Python.
        remove_hook_from_submodules(model)
    layer = next((m for m in model.modules() if isinstance(m, BaseQuantLinear)), None)
    if layer is None:
        raise Refused(
            "bad_checkpoint",
            f"the checkpoint has no {family.upper()} layers",
            f"name a {family.upper()} checkpoint, or add [variants.quantize] to make one here",
        )
    group = f"g{layer.group_size}" if layer.group_size > 0 else "no groups"
    kernel = f"{commonest_class(model, BaseQuantLinear)} {layer.bits}-bit {group}"
    return Loaded(
        command, model, tokenizer, kernel=kernel, note=note, slow_kernel=slow, bits=layer.bits
    )


def text_model(model: Any) -> Any:
    """Return the part of `model` that generates text: for Llama 4 its language model, else `model`.

    GPTQModel loads Llama 4 with its vision tower, and the forward pass of that class fails in
    transformers 5.24 ("no attribute 'image_outputs'"). The engine `transformers` also loads only
    the language model.
    """
    whole = type(model).__name__ == "Llama4ForConditionalGeneration"
    return model.language_model if whole else model


def _whole_rows(model: str) -> bool:
    """Return whether the checkpoint in the folder `model` has one scale per row, and no groups."""
    found = folder_of(model).quantization
    return found is not None and found.get("group_size") in (-1, None)


@contextlib.contextmanager
def name_model_kind(model: str, doing: str) -> Iterator[None]:
    """Raise Refused that names the model's architecture if GPTQModel does not support it.

    `model` is the model's folder; `doing` is a verb for what is done with the model within this
    context, such as "load". For an unsupported architecture, GPTQModel's own errors name only a
    tensor or an attribute in its code. Errors about memory, devices, missing libraries and damaged
    files say what is wrong, and are not changed.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, FileNotFoundError, LookupError,
            RuntimeError, TypeError, ValueError) as error:  # fmt: skip
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the operating system; GPTQModel's own, for a missing tensor, has no errno
        failure = describe(error, loading=model)
        if failure.kind != "bad_checkpoint" or "afetensor" in type(error).__name__:
            raise
        config = folder_of(model).config
        classes = config.get("architectures")
        kind = str(classes[0]) if isinstance(classes, list) and classes else "a model"
        raise Refused(
            "unsupported",
            f"GPTQModel {importlib.metadata.version('gptqmodel')} could not {doing} this kind of"
            f" model, {kind} ({config.get('model_type')}): "
            + on_one_line(f"{type(error).__name__}: {error}", 160),
            'use engine = "bitsandbytes" on the unquantized model, or look at the worker\'s log',
        ) from error


def _single_device(command: LoadModel, device: str) -> str | None:
    """Return `device`, or None if it was chosen automatically and the weights do not fit on it.

    With None, GPTQModel spreads the layers over all GPUs. Raises Refused if the weights do not fit
    on all GPUs together.
    """
    several = room_by_gpu(command, device)
    if not several:
        return device
    if weights_on_disk(command.model) > sum(several.values()):
        raise weights_do_not_fit()
    return None


@contextlib.contextmanager
def _only_on(device: str) -> Iterator[None]:
    """Within this context, make GPTQModel put all layers on `device`, not on all GPUs.

    GPTQModel 7.6 spreads the layers over all GPUs, whatever its arguments `device` and `device_map`
    say: models/loader.py never takes the branch for an explicit map. Remove this workaround when
    GPTQModel is fixed.
    """
    from gptqmodel.models import loader

    original = loader._layerwise_device_count, loader._layerwise_device_strings
    loader._layerwise_device_count = lambda wanted: 1
    loader._layerwise_device_strings = lambda wanted, count: [device]
    try:
        yield
    finally:
        loader._layerwise_device_count, loader._layerwise_device_strings = original


@contextlib.contextmanager
def in_memory() -> Iterator[None]:
    """Within this context, prevent GPTQModel from writing weights to a temporary folder.

    For a model on the CPU, GPTQModel 7.6 makes accelerate write each tensor to its own file and
    read the file again (`offload_state_dict`), which takes longer than the rest of loading. Remove
    this workaround when GPTQModel no longer does so.
    """
    import accelerate

    original = accelerate.load_checkpoint_in_model

    def load(*args: Any, **options: Any) -> None:
        original(*args, **{**options, "offload_state_dict": False})

    accelerate.load_checkpoint_in_model = load
    try:
        yield
    finally:
        accelerate.load_checkpoint_in_model = original


def _backend(family: str, kernel: str, backends: Any) -> Any:
    """Return the member of GPTQModel's enum `BACKEND` for `kernel`.

    `family` is the quantization method, `gptq` or `awq`; `backends` is the enum. Raises Refused for
    an unknown kernel.
    """
    names = {backend.value: backend for backend in backends}
    for name in (f"{family}_{kernel}", kernel):
        if name == "auto" or (name in names and name.startswith(f"{family}_")):
            return names[name]
    known = sorted(n.removeprefix(f"{family}_") for n in names if n.startswith(f"{family}_"))
    raise Refused(
        "unsupported",
        f"GPTQModel has no kernel {kernel!r} for {family.upper()}",
        f"use one of: auto, {', '.join(known)}",
    )
