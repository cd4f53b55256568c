"""Unpack torch's 4-bit weights to a dense matrix, for inputs of many rows (tokens).

torch's kernel for packed weights unpacks the weight again for every few rows of the input. That is
fastest for one row, but slow for a prompt. The layout of the packed weights is not documented and
depends on the processor. It was read from `weight_to_int4pack_kernel`
(ATen/native/cpu/int4mm_kernel.cpp) of torch 2.13. `int4_width` compares the unpacked weights with
those that torch's kernel uses. If they differ, the weights are not unpacked here, and torch's
kernel computes all products.
"""

from __future__ import annotations

from typing import Any

import torch

_WIDTHS = (64, 32)
"""Possible numbers of output features in a block of packed weights; which of them torch uses
depends on the processor's vector width."""

_PROBES = 8
"""Number of input features whose weights are compared with those of torch's kernel."""


def int4(packed: Any, scales_and_zeros: Any, group: int, width: int) -> Any:
    """Return the dense weight of `_weight_int4pack_mm_for_cpu`, (in, out), in the scales' dtype.

    `packed` is uint8, (out, in / 2); `scales_and_zeros` is (in / group, out, 2), with the group
    size `group`. A block of `width` output features has `width` / 2 bytes for each input feature:
    the low four bits belong to the first half of the output features, the high bits to the second.
    """
    out = packed.shape[0]
    blocks = packed.view(out // width, -1, width // 2).transpose(0, 1)
    codes = torch.empty((len(blocks), out // width, 2, width // 2), dtype=scales_and_zeros.dtype)
    codes[:, :, 0] = (blocks & 15).view(torch.int8) - 8
    codes[:, :, 1] = (blocks >> 4).view(torch.int8) - 8
    scales, zeros = scales_and_zeros.unsqueeze(1).unbind(-1)
    return torch.addcmul(zeros, codes.view(-1, group, out), scales).view(-1, out)


def int4_width(packed: Any, scales_and_zeros: Any, group: int) -> int:
    """Return the `width` with which `int4` gives exactly the weights of torch's kernel, or 0.

    0 means that no width does so on this processor. The kernel gets inputs with a single 1, so each
    of its outputs is one weight, without rounding.
    """
    inputs = 2 * packed.shape[1]
    places = torch.linspace(0, inputs - 1, _PROBES).long()
    single = torch.zeros((_PROBES, inputs), dtype=torch.bfloat16)
    single[torch.arange(_PROBES), places] = 1
    expected = torch.ops.aten._weight_int4pack_mm_for_cpu(single, packed, group, scales_and_zeros)
    for width in _WIDTHS:
        if packed.shape[0] % width == 0:
            found = int4(packed, scales_and_zeros, group, width)[places]
            if torch.equal(found, expected):
                return width
    return 0
