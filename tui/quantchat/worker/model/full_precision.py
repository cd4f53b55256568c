"""Modules of a model that bitsandbytes leaves in full precision."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from quantchat.wire.messages import Load
from quantchat.worker.model.contents import beside_the_decoder
from quantchat.worker.model.loaded import auto_class

_CPU_BLOCK = 32
"""Where bitsandbytes repacks for AVX512-BF16, the outputs of a 4-bit layer must be a multiple of it
(`_convert_weight_packed_for_cpu`)."""


def modules_in_full_precision(
    command: Load, config: Any, *, repacked: bool
) -> tuple[list[str] | None, str]:
    """Return patterns of the modules to leave in full precision, and a note for the user.

    The patterns are None where transformers' default serves. Vision and audio parts stay in full
    precision, as the models are published and measured. `repacked`: 4-bit layers get the layout of
    a processor's kernel, which does not take every width.
    """
    import torch

    with torch.device("meta"):
        model = auto_class(command, config).from_config(
            config, trust_remote_code=command.trust_remote_code
        )
    towers = set(_towers(model))
    refused = set(_refused_widths(model)) if repacked else set()
    left = sorted({*towers, *refused, *_usual(model)}) if towers or refused else None
    if not refused:
        return left, ""
    names = ", ".join(sorted({name.rpartition(".")[2] for name in refused}))
    return left, f"not quantized, because the processor's kernel does not take their width: {names}"


def _usual(model: Any) -> Iterator[str]:
    """Yield what transformers leaves by default: the output head and the weights tied to it."""
    head = model.get_output_embeddings()
    yield from (name for name, module in model.named_modules() if module is head)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    yield from (name.removesuffix(".weight") for name in [*tied, *tied.values()])


def _towers(model: Any) -> Iterator[str]:
    """Yield the modules for images and audio, each by its shortest name."""
    decoder = model.get_decoder()
    inside = next((name for name, module in model.named_modules() if module is decoder), "")
    for layer in beside_the_decoder(model):
        parts = layer.split(".")
        heads = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
        yield re.escape(next(head for head in heads if not f"{inside}.".startswith(f"{head}.")))


def _refused_widths(model: Any) -> Iterator[str]:
    """Yield a pattern for each layer whose width the processor's kernel does not take."""
    import torch

    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear and module.out_features % _CPU_BLOCK:
            yield re.sub(r"\\\.\d+(?=\\\.)", r"\\.\\d+", re.escape(name))
