"""Find the modules that stay in full precision when a model is quantized while it is loaded.

It also chooses the dtype of these modules and of the activations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from quantchat.wire.messages import LoadModel
from quantchat.worker.model.contents import tower_linears
from quantchat.worker.model.devices import fast_dtype
from quantchat.worker.model.loaded import auto_class, choose_dtype


def half_precision(command: LoadModel, config: Any, device: str) -> Any:
    """Return the `torch.dtype` of activations and unquantized weights.

    For the setting `auto` it is float16 or bfloat16, even for a float32 checkpoint: if weights are
    quantized, float32 activations gain no accuracy. `config` is the model's config in
    transformers.
    """
    import torch

    dtype = choose_dtype(command.dtype)
    if dtype != "auto":
        return dtype
    half = config.dtype in (torch.bfloat16, torch.float16)
    return fast_dtype(config.dtype if half else torch.bfloat16, device)


def without_weights(command: LoadModel, config: Any) -> Any:
    """Return the model of `config` on torch's device `meta`: all its modules, but no weights."""
    import torch

    with torch.device("meta"):
        return auto_class(command, config).from_config(
            config, trust_remote_code=command.trust_remote_code
        )


def body_linears(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and module of the linear layers of the text decoder, without the output head."""
    import torch

    excluded = {id(model.get_output_embeddings())}
    excluded.update(id(model.get_submodule(name)) for name in tower_linears(model))
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and id(module) not in excluded:
            yield name, module


def modules_in_full_precision(
    model: Any, refuses: Callable[[Any], bool] = lambda layer: False
) -> tuple[list[str] | None, str]:
    """Return regular expressions of modules to leave in full precision, and a note for the user.

    These are the vision and audio towers, as in published quantized models, and the linear layers
    for which `refuses` returns True: layers of a width that the kernel does not support. If `model`
    has neither, None is returned in place of the expressions, and transformers leaves only the
    output head and weights tied to it in full precision. The note names the refused layers.
    """
    towers = set(_towers(model))
    refused = {
        re.sub(r"\\\.\d+(?=\\\.)", r"\\.\\d+", re.escape(name))
        for name, module in body_linears(model)
        if refuses(module)
    }
    kept_patterns = (
        sorted({*towers, *refused, *_head_and_tied(model)}) if towers or refused else None
    )
    if not refused:
        return kept_patterns, ""
    names = ", ".join(sorted({name.rpartition(".")[2] for name in refused}))
    return kept_patterns, f"not quantized, because the kernel does not support their width: {names}"


def _head_and_tied(model: Any) -> Iterator[str]:
    """Yield the names of output head and tied weights, which transformers never quantizes."""
    head = model.get_output_embeddings()
    yield from (name for name, module in model.named_modules() if module is head)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    yield from (name.removesuffix(".weight") for name in [*tied, *tied.values()])


def _towers(model: Any) -> Iterator[str]:
    """Yield a regular expression for each outermost module with vision or audio layers.

    Outermost: the module does not contain the text decoder, but the module around it does.
    """
    decoder = model.get_decoder()
    inside = next((name for name, module in model.named_modules() if module is decoder), "")
    for layer in tower_linears(model):
        parts = layer.split(".")
        heads = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
        yield re.escape(next(head for head in heads if not f"{inside}.".startswith(f"{head}.")))
