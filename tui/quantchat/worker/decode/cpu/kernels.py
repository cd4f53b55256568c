"""Computes linear layers on the CPU: calls the kernels directly that the layers' `forward` calls.

For an input of one row (one token), the code between a layer's `forward` and its kernel (checks,
casts, autograd, reshapes) takes longer than the product itself. A `Product` computes one layer, or
several layers that read the same input (query, key and value; gate and up) as one matrix. The
weights stay as the library packed them. The weights of fused layers lie in one block of memory, and
each layer has a view of its part.
"""

from __future__ import annotations

import ctypes
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional

from quantchat.worker.decode.cpu import int4_unpack
from quantchat.worker.decode.cpu.c_library import compiled
from quantchat.worker.failures import Refused
from quantchat.worker.memory import is_subclass

_ROW_PRODUCT = Path(__file__).with_name("row_product.c")

_ROWS = 8
"""Number of input rows (tokens) from which converting bfloat16 weights to float32 makes a product
faster, on a processor without fast bfloat16."""

_UNPACK_ROWS = 256
"""Number of input rows from which unpacking torch's 4-bit weights makes a product faster."""

_TRIES = 4
"""Number of timed calls of each kernel when two kernels are compared; the fastest call counts."""

_SLAB = 2**20
"""Number of weights unpacked at a time: few enough to stay in the processor's cache."""

_BLOCK = 64
"""Output features in one block of the packed 4-bit layouts. The number of output features of a
fused layer must be a multiple of this."""

NATIVE_BF16 = torch.backends.mkldnn.is_available() and bool(
    torch.ops.mkldnn._is_mkldnn_bf16_supported()
)
"""Whether the processor multiplies bfloat16 fast; if not, float32 is several times faster."""

_OURS = "_quantchat"
"""Attribute that marks a `forward` as set by this module, not by a library."""


class Product(Protocol):
    """Multiplies rows by a weight."""

    def __call__(self, rows: Any) -> Any:
        """Return `rows`, (n, in), times the weight: (n, out), in the rows' dtype."""


def product(layers: Sequence[Any]) -> Product | None:
    """Return the product of all `layers` side by side, or None if no kernel is known for them.

    Several layers are fused: their weights move into one block of memory, and each layer gets a
    view of its part. Call this after a first forward pass, in which kernels may repack their
    weights.
    """
    first = layers[0]
    if any(type(layer) is not type(first) or layer.training for layer in layers):
        return None
    if any(adapted(layer) or computed_elsewhere(layer) for layer in layers):
        return None
    if type(first) is torch.nn.Linear:
        return _Dense(layers)
    name = type(first).__name__
    if name == "TorchAtenLinear":
        return _Int4.of(layers)
    if name in ("Linear4bit", "LinearNF4", "LinearFP4"):
        return _packed_4bit(layers) or _Unpacked4Bit.of(layers)
    return None


def adapted(module: Any) -> bool:
    """Return whether `module` is a PEFT wrapper around a base layer.

    Such a wrapper presents the base layer's weights as its own, so a product with these weights
    would leave out the adapter.
    """
    return hasattr(module, "base_layer")


def computed_elsewhere(layer: Any) -> bool:
    """Return whether a library computes `layer` in another way than the class of `layer` does.

    torchao replaces the weight by a tensor subclass; compressed-tensors and accelerate set their
    own `forward` on the module.
    """
    own = vars(layer).get("forward")
    return is_subclass(getattr(layer, "weight", None)) or not (own is None or hasattr(own, _OURS))


class _Dense:
    def __init__(self, layers: Sequence[Any]) -> None:
        self._weight = _joined([layer.weight.data for layer in layers])
        _share(layers, "weight", self._weight, [layer.out_features for layer in layers])
        self._bias = _bias(layers)
        self._widen = self._weight.dtype is torch.bfloat16 and not NATIVE_BF16
        self._of_a_row = _fastest(self._weight)

    def __call__(self, rows: Any) -> Any:
        if self._of_a_row is not None and rows.shape[0] == 1:
            out = self._of_a_row(self._weight, rows)
            return out if self._bias is None else out.add_(self._bias)
        if self._widen and rows.shape[0] >= _ROWS:
            bias = None if self._bias is None else self._bias.float()
            return functional.linear(rows.float(), self._weight.float(), bias).to(rows.dtype)
        return functional.linear(rows, self._weight, self._bias)


_RowProduct = Callable[[Any, Any], Any]
"""Returns the product of a weight, (out, in), and one row, (1, in): (1, out)."""

_FASTEST: dict[tuple[Any, ...], _RowProduct | None] = {}
"""What `_fastest` found, by shape, dtype and number of threads."""


def _fastest(weight: Any) -> _RowProduct | None:
    """Return what multiplies one row by `weight` faster than oneDNN; None if nothing does.

    All are tried, because no rule is known: of two processors with fast bfloat16, one multiplied
    the output head of the demo's model faster with `torch.mv`, the other took 1.5 times as long
    with it.
    """
    key = (*weight.shape, weight.dtype, torch.get_num_threads())
    if key not in _FASTEST:
        row = weight[:1].clone()
        products: list[_RowProduct] = [_plain_product]
        if weight.dtype is torch.bfloat16 and _multiply() is not None:
            products.append(_product_in_c)
        with torch.inference_mode():
            times = {product: _seconds(partial(product, weight, row)) for product in products}
            fastest = min(times, key=times.__getitem__)
            of_onednn = _seconds(lambda: functional.linear(row, weight))
        _FASTEST[key] = fastest if times[fastest] < of_onednn else None
    return _FASTEST[key]


def _plain_product(weight: Any, row: Any) -> Any:
    return torch.mv(weight, row[0]).unsqueeze(0)


def _product_in_c(weight: Any, row: Any) -> Any:
    """Multiply with `row_product.c`. `weight` is contiguous, and both are bfloat16."""
    row = row.contiguous()
    out = row.new_empty((1, weight.shape[0]))
    _multiply()(weight.data_ptr(), row.data_ptr(), out.data_ptr(), *weight.shape)
    return out


@cache
def _multiply() -> Any:
    """Return the function of `row_product.c`, or None if it cannot be compiled here."""
    try:
        # `CDLL` releases Python's lock: the product with an output head takes milliseconds.
        multiply = ctypes.CDLL(str(compiled(_ROW_PRODUCT))).multiply
    except (Refused, OSError, subprocess.TimeoutExpired):
        return None
    multiply.argtypes = [*3 * [ctypes.c_void_p], *2 * [ctypes.c_long]]
    multiply.restype = None
    return multiply


def _seconds(compute: Callable[[], Any]) -> float:
    """Return the shortest time of a few calls in s, without the first, which may do preparation."""
    times = []
    for _ in range(1 + _TRIES):
        began = time.perf_counter()
        compute()
        times.append(time.perf_counter() - began)
    return min(times[1:])


class _Int4:
    """GPTQModel's `TorchAtenLinear` (attributes as in 7.6), computed with torch's 4-bit kernel."""

    def __init__(self, layers: Sequence[Any]) -> None:
        first = layers[0]
        self._weight = _joined([layer.qweight for layer in layers])
        scales = [layer.scales_and_zeros for layer in layers]
        self._scales = scales[0] if len(layers) == 1 else torch.cat(scales, dim=1).contiguous()
        widths = [layer.out_features for layer in layers]
        _share(layers, "qweight", self._weight, widths)
        _share(layers, "scales_and_zeros", self._scales, widths, dim=1)
        self._group = first.group_size
        order = first.ret_idx.long()
        in_order = torch.equal(order, torch.arange(len(order)))
        self._order = None if in_order else order
        self._bias = _bias(layers)
        self._width = int4_unpack.int4_width(self._weight, self._scales, self._group)

    @classmethod
    def of(cls, layers: Sequence[Any]) -> Product | None:
        first = layers[0]
        fits = all(
            layer.linear_mode == "inference"
            and layer.adapter is None
            and layer.group_size == first.group_size
            and torch.equal(layer.ret_idx, first.ret_idx)
            and (len(layers) == 1 or layer.out_features % _BLOCK == 0)
            for layer in layers
        )
        return cls(layers) if fits else None

    def __call__(self, rows: Any) -> Any:
        dtype = rows.dtype
        if self._order is not None:
            rows = rows.index_select(1, self._order)
        if (
            dtype is not torch.bfloat16
        ):  # `to` takes a tenth of the product's time, also for nothing
            rows = rows.to(torch.bfloat16)
        rows = rows.contiguous()
        if self._width and NATIVE_BF16 and rows.shape[0] >= _UNPACK_ROWS:
            out = self._unpacked(rows)
        else:
            out = torch._weight_int4pack_mm_for_cpu(rows, self._weight, self._group, self._scales)
        if dtype is not torch.bfloat16:
            out = out.to(dtype)
        return out if self._bias is None else out.add_(self._bias)

    def _unpacked(self, rows: Any) -> Any:
        out = rows.new_empty((rows.shape[0], self._weight.shape[0]))
        slab = max(_BLOCK, _SLAB // rows.shape[1] // _BLOCK * _BLOCK)
        for start in range(0, out.shape[1], slab):
            part = slice(start, start + slab)
            weight = int4_unpack.int4(
                self._weight[part], self._scales[:, part], self._group, self._width
            )
            out[:, part] = rows @ weight
        return out


class _Packed4Bit:
    """bitsandbytes' 4-bit kernel for AVX512-BF16, for weights that bitsandbytes has repacked.

    The attributes are those of bitsandbytes 0.50.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        states = [layer.weight.quant_state for layer in layers]
        widths = [state.shape[0] for state in states]
        self._shape = [sum(widths), states[0].shape[1]]
        self._weight = _joined([layer.weight.data for layer in layers])
        _share(layers, "weight", self._weight, widths)
        absmax = [state.absmax for state in states]
        self._absmax = absmax[0] if len(layers) == 1 else torch.cat(absmax, dim=1).contiguous()
        _share(states, "absmax", self._absmax, widths, dim=1)
        self._code, self._blocksize = states[0].code, states[0].blocksize
        self._bias = _bias(layers)

    def __call__(self, rows: Any) -> Any:
        out = torch.ops.bitsandbytes.gemv_4bit.default(
            rows.contiguous(), self._weight, self._shape, self._absmax, self._code, self._blocksize
        )
        return out if self._bias is None else out.add_(self._bias)


def _packed_4bit(layers: Sequence[Any]) -> Product | None:
    states = [layer.weight.quant_state for layer in layers]
    fits = all(
        getattr(state, "packing_format_for_cpu", False)
        and not state.nested
        and state.blocksize == states[0].blocksize
        and (len(layers) == 1 or state.shape[0] % _BLOCK == 0)
        for state in states
    )
    return _Packed4Bit(layers) if fits else None


class _Unpacked4Bit:
    """bitsandbytes weights that are not repacked for AVX512-BF16: unpacked again for each product.

    The attributes are those of bitsandbytes 0.50. Unless the processor has fast bfloat16, this
    class unpacks to float32: that takes less than half the time of unpacking to bfloat16, and the
    product is faster too.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._bias = _bias([layer])

    @classmethod
    def of(cls, layers: Sequence[Any]) -> Product | None:
        state = layers[0].weight.quant_state
        packed = getattr(state, "packing_format_for_cpu", False)
        return None if len(layers) > 1 or packed else cls(layers[0])

    def __call__(self, rows: Any) -> Any:
        weight = self._layer.weight
        state = weight.quant_state
        absmax = state.absmax
        if state.nested:
            inner = state.state2
            absmax = state.offset + torch.ops.bitsandbytes.dequantize_blockwise(
                absmax, inner.absmax, inner.code, inner.blocksize, torch.float32
            )
        fast = NATIVE_BF16 and rows.dtype == torch.bfloat16
        dtype = torch.bfloat16 if fast else torch.float32
        matrix = torch.ops.bitsandbytes.dequantize_4bit(
            weight.data, absmax, state.blocksize, state.quant_type, state.shape, dtype
        )
        out = functional.linear(rows.to(dtype), matrix).to(rows.dtype)
        return out if self._bias is None else out.add_(self._bias)


# ------------------------------------------------------------ weights side by side


def _joined(weights: list[Any]) -> Any:
    return weights[0] if len(weights) == 1 else torch.cat(weights).contiguous()


def _share(
    holders: Sequence[Any], name: str, block: Any, widths: list[int], *, dim: int = 0
) -> None:
    """Replace the tensor `name` of each of `holders` by a view of its part of `block`."""
    if len(holders) == 1:
        return
    for holder, part in zip(holders, block.split(widths, dim=dim), strict=True):
        old = getattr(holder, name)
        if isinstance(old, torch.nn.Parameter):
            old.data = part
        else:
            setattr(holder, name, part)


def _bias(layers: Sequence[Any]) -> Any:
    """Return the biases joined into one vector, or None if no layer has a bias."""
    if all(layer.bias is None for layer in layers):
        return None
    dtype = next(layer.bias.dtype for layer in layers if layer.bias is not None)
    return torch.cat(
        [
            torch.zeros(layer.out_features, dtype=dtype) if layer.bias is None else layer.bias.data
            for layer in layers
        ]
    )


# ------------------------------------------------------------ in a model of any architecture


def call_directly(model: Any) -> int:
    """Make each linear layer of `model` call its kernel directly; return how many layers do."""
    count = 0
    for layer in model.modules():
        if isinstance(layer, torch.nn.Module) and (direct := product([layer])) is not None:
            layer.forward = _reshaped(direct)
            count += 1
    return count


def call_as_before(model: Any) -> None:
    """Undo `call_directly`."""
    for layer in model.modules():
        if hasattr(vars(layer).get("forward"), _OURS):
            del layer.forward


def _reshaped(direct: Product) -> Any:
    def forward(x: Any) -> Any:
        out = direct(x.reshape(-1, x.shape[-1]))
        return out.view(*x.shape[:-1], out.shape[-1])

    setattr(forward, _OURS, True)
    return forward
