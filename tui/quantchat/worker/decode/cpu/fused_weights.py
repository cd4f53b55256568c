"""Layers whose weights lie in one block, as a fused product has them, and their own `forward`.

Rows of a block are as good as a weight of their own. Columns are not: the kernels want them without
gaps, and where a layer's own `forward` hands them columns of a block, they read the neighbours'
and compute garbage.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch


def unfuse(model: Any) -> None:
    """Give each layer its own copy again, for good."""
    for layer in model.modules():
        for holder, name, columns in _columns(layer):
            setattr(holder, name, columns.contiguous())


@contextlib.contextmanager
def readable(model: Any) -> Iterator[None]:
    """While it lasts, the modules of `model` compute as if their weights lay in no block.

    What a layer cannot read where it lies is copied when the layer begins, and dropped when it is
    done: one at a time, so that no memory is taken by it.
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


def _copy(found: list[tuple[Any, str, Any]], _layer: Any, _given: Any) -> None:
    for holder, name, columns in found:
        setattr(holder, name, columns.contiguous())


def _put_back(found: list[tuple[Any, str, Any]], _layer: Any, _given: Any, _out: Any) -> None:
    for holder, name, columns in found:
        setattr(holder, name, columns)


def _columns(layer: Any) -> Iterator[tuple[Any, str, Any]]:
    """What of `layer` may be columns of a block: who holds it, as what, and the tensor."""
    if isinstance(scales := getattr(layer, "scales_and_zeros", None), torch.Tensor):
        yield layer, "scales_and_zeros", scales
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    if state is not None:
        yield state, "absmax", state.absmax
