"""Multiplies bfloat16 matrices as float32 on a processor without fast bfloat16 products.

On such a processor torch multiplies bfloat16 several times more slowly than float32, above all in
attention over long windows. The sums are in float32 in both cases, and the result is rounded to
bfloat16.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from quantchat.worker.decode.cpu import kernels

_PRODUCTS = frozenset(
    {
        torch.matmul,
        torch.Tensor.matmul,
        torch.Tensor.__matmul__,
        torch.bmm,
        torch.Tensor.bmm,
        torch.nn.functional.linear,
    }
)


def fast_products(device: Any) -> AbstractContextManager[Any]:
    """Return a context in which matrix products on `device` are computed in the faster dtype.

    `device` is a `torch.device`.
    """
    fast = device.type != "cpu" or kernels.NATIVE_BF16
    return contextlib.nullcontext() if fast else _Float32Products()


class _Float32Products(TorchFunctionMode):  # type: ignore[misc]  # torch is not analysed
    """Computes products of bfloat16 matrices on the CPU in float32, while the context lasts."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _PRODUCTS or "out" in kwargs:
            return func(*args, **kwargs)
        tensors = [value for value in (*args, *kwargs.values()) if value is not None]
        if not all(_is_plain_bfloat16(tensor) for tensor in tensors):
            return func(*args, **kwargs)
        product = func(*map(_widened, args), **{k: _widened(v) for k, v in kwargs.items()})
        return product.bfloat16()


def _widened(tensor: Any) -> Any:
    """Return `tensor` as float32; None stays None."""
    return None if tensor is None else tensor.float()


def _is_plain_bfloat16(value: Any) -> bool:
    """Return whether `value` is a bfloat16 tensor on the CPU, and not of a library's subclass."""
    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.dtype == torch.bfloat16
        and value.device.type == "cpu"
    )
