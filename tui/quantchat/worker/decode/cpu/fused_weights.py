"""Undo the fusing of weights: give each layer of a fused product weights of its own again.

A fused product (`kernels.product` over several layers) stores the weights of these layers side by
side, and each layer keeps a view of its part. A view of rows works like a weight of its own. A view
of columns does not: the kernels expect contiguous memory and would read another layer's numbers.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch


def unfuse(model: Any) -> None:
    """Give each layer of `model` its own copy of its columns, permanently."""
    for layer in model.modules():
        for holder, name, columns in _columns(layer):
            setattr(holder, name, columns.contiguous())


@contextlib.contextmanager
def unfused_weights(model: Any) -> Iterator[None]:
    """Let the modules of `model` compute with their own weights while the context lasts.

    Columns are copied when the forward pass of a layer begins, and the copies are dropped when it
    ends. So there are copies for one layer at a time only.
    """
    hooks = []
    for layer in model.modules():
        if found := [one for one in _columns(layer) if not one[2].is_contiguous()]:
            hooks += [
                layer.register_forward_pre_hook(functools.partial(_copy, found)),
                layer.register_forward_hook(functools.partial(_put_back, found), always_call=True),
            ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _copy(found: list[tuple[Any, str, Any]], _layer: Any, _inputs: Any) -> None:
    for holder, name, columns in found:
        setattr(holder, name, columns.contiguous())


def _put_back(found: list[tuple[Any, str, Any]], _layer: Any, _inputs: Any, _output: Any) -> None:
    for holder, name, columns in found:
        setattr(holder, name, columns)


def _columns(layer: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yield owner, attribute name and tensor of each tensor of `layer` that may be a column view.

    These tensors are the scales of GPTQModel's `TorchAtenLinear` and of bitsandbytes' repacked
    layers.
    """
    if isinstance(scales := getattr(layer, "scales_and_zeros", None), torch.Tensor):
        yield layer, "scales_and_zeros", scales
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    if state is not None and isinstance(absmax := getattr(state, "absmax", None), torch.Tensor):
        yield state, "absmax", absmax
