"""Which of transformers' classes a model is loaded as, and what of it is not to be quantized."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from quantchat.wire.messages import Load
from quantchat.worker.failures import Refused
from quantchat.worker.model.contents import beside_the_decoder

_AUTO = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")
"""In this order: a model that also sees answers text by its text part alone, if it has a class for
that, else with what sees beside it."""

_CPU_BLOCK = 32
"""Outputs of a 4-bit layer are a multiple of it where bitsandbytes repacks for AVX512-BF16
(`_convert_weight_packed_for_cpu`)."""


def auto_class(command: Load, config: Any) -> Any:
    """The auto class of transformers that loads the model of `config`, which lies in the folder.

    Raises Refused where transformers has no class for it that writes text.
    """
    import transformers

    if command.trust_remote_code and _AUTO[0] in (getattr(config, "auto_map", None) or {}):
        return transformers.AutoModelForCausalLM
    for name in _AUTO:
        found = getattr(transformers, name, None)  # transformers 4 has not all of them
        if found is not None and type(config) in found._model_mapping:
            return found
    named = ", ".join(getattr(config, "architectures", None) or [config.model_type])
    raise Refused(
        "unsupported",
        f"transformers {transformers.__version__} has no class that writes text for {named}",
        "name a language model; or, if it needs its own code, add trust_remote_code = true",
    )


def left_by_bitsandbytes(
    command: Load, config: Any, *, repacked: bool
) -> tuple[list[str] | None, str]:
    """Patterns for the modules that are to stay as they are, and what to know of that.

    None where transformers' own choice will do. What sees or hears is left in full precision, as
    the models are published and measured. With `repacked`, 4-bit layers get the layout of a
    processor's kernel, which refuses some widths.
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
    return left, f"not quantized, since the processor's kernel takes no such width: {names}"


def _usual(model: Any) -> Iterator[str]:
    """What transformers leaves where it is given no list: the head and what is tied to it."""
    head = model.get_output_embeddings()
    yield from (name for name, module in model.named_modules() if module is head)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    yield from (name.removesuffix(".weight") for name in [*tied, *tied.values()])


def _towers(model: Any) -> Iterator[str]:
    """The modules that hold all that sees or hears, each by its shortest name."""
    decoder = model.get_decoder()
    inside = next((name for name, module in model.named_modules() if module is decoder), "")
    for layer in beside_the_decoder(model):
        parts = layer.split(".")
        heads = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
        yield re.escape(next(head for head in heads if not f"{inside}.".startswith(f"{head}.")))


def _refused_widths(model: Any) -> Iterator[str]:
    """Layers whose width the processor's kernel refuses: one pattern for all blocks."""
    import torch

    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear and module.out_features % _CPU_BLOCK:
            yield re.sub(r"\\\.\d+(?=\\\.)", r"\\.\\d+", re.escape(name))
