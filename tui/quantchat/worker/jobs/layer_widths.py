"""Widths of a model's layers, for checking the group size and choosing the calibration size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from quantchat.worker.failures import Refused

_AWQ_ROWS = 64
"""GPTQModel 7.6 searches the clipping of AWQ for this many output rows of a weight at a time."""
_AWQ_UNCLIPPED = ("q_", "k_", "query", "key", "Wqkv")
"""Parts of the names of layers whose weights AWQ does not clip."""


def check_groups(model: Any, group_size: int) -> None:
    """Raise Refused if `group_size` does not divide the width of a layer to be quantized.

    The width is the number of inputs. A negative group size means a whole row, which always fits.
    """
    if group_size < 0:
        return
    for name, width in _widths(model):
        if width % group_size:
            fitting = [size for size in (128, 64, 32, 16) if width % size == 0]
            raise Refused(
                "unsupported",
                f"the group size {group_size} does not divide the width {width} of {name}",
                f"use a group size of {fitting[0] if fitting else '-1, a whole row'}",
            )


def check_awq(model: Any, quantized: Iterable[str]) -> None:
    """Raise Refused if the number of outputs of a layer does not fit AWQ's search for the clipping.

    `quantized` has the names, within a decoder block, of the layers that AWQ quantizes. The router
    of a mixture of experts, which has few outputs, is not among them.

    GPTQModel 7.6 searches in blocks of 64 outputs (looper/awq_processor.py, `_compute_best_clip`).
    """
    ends = tuple(f".{name}" for name in quantized)
    for name, layer in _layers(model):
        if not name.endswith(ends):
            continue
        clipped = not any(part in name for part in _AWQ_UNCLIPPED)
        if clipped and layer.out_features % _AWQ_ROWS:
            raise Refused(
                "unsupported",
                f"GPTQModel's AWQ needs layers with a multiple of {_AWQ_ROWS} outputs, but {name}"
                f" has {layer.out_features}",
                "use --method gptq",
            )


def widest(model: Any) -> int:
    """Return the number of inputs of the widest layer to be quantized; 0 if there is no layer.

    GPTQ's Hessian of that layer is a sum of matrices of rank one, one for each token (Frantar et
    al. 2022). With fewer tokens than inputs the Hessian is singular, and only the damping makes it
    invertible.
    """
    return max((width for _, width in _widths(model)), default=0)


def widest_of(config: Any) -> int:
    """Return an estimate of `widest` for a model that is not loaded, from its `config`."""
    text = config.get_text_config()
    hidden = int(getattr(text, "hidden_size", 0))
    # If the config does not give the width of the MLP, it is usually four times the hidden size.
    return max(hidden, int(getattr(text, "intermediate_size", None) or 4 * hidden))


def _widths(model: Any) -> Iterator[tuple[str, int]]:
    """Yield name and number of inputs of each layer to be quantized."""
    return ((name, layer.in_features) for name, layer in _layers(model))


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and module of each linear layer of a transformers `model` to be quantized.

    GPTQModel quantizes only the decoder's blocks, not the head and not vision or audio towers:
    Gemma 3's vision tower has widths that no group size above 16 divides.
    """
    import torch

    head = model.get_output_embeddings()
    for name, module in model.get_decoder().named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            yield name, module
