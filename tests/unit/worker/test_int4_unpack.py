"""Unpacking torch's packed 4-bit weights gives exactly the values that the kernel uses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from quantchat.worker.decode.cpu import int4_unpack, kernels

GROUP = 32


def packed(out: int, inputs: int) -> tuple[Any, Any]:
    torch.manual_seed(0)
    codes = torch.randint(0, 16, (out, inputs), dtype=torch.int32)
    scales_and_zeros = torch.randn((inputs // GROUP, out, 2)).to(torch.bfloat16)
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1), scales_and_zeros


@pytest.mark.parametrize("out", [64, 192])
def test_it_gives_the_weights_of_the_kernel(out: int) -> None:
    weight, scales = packed(out, 96)
    width = int4_unpack.int4_width(weight, scales, GROUP)
    assert width in (32, 64)
    single = torch.eye(96, dtype=torch.bfloat16)
    expected = torch.ops.aten._weight_int4pack_mm_for_cpu(single, weight, GROUP, scales)
    assert torch.equal(int4_unpack.int4(weight, scales, GROUP, width), expected)


def test_a_layout_that_is_not_understood_is_left_to_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight, scales = packed(64, 96)
    monkeypatch.setattr(int4_unpack, "_WIDTHS", (16,))
    assert int4_unpack.int4_width(weight, scales, GROUP) == 0


def test_many_rows_are_multiplied_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_SLAB", 64 * 96)  # so that the 192 rows are three slabs
    monkeypatch.setattr(kernels, "NATIVE_BF16", True)
    weight, scales = packed(192, 96)
    layer = SimpleNamespace(
        qweight=weight,
        scales_and_zeros=scales,
        out_features=192,
        group_size=GROUP,
        ret_idx=torch.arange(96),
        bias=None,
    )
    multiply = kernels._Int4([layer])
    rows = torch.randn((kernels._UNPACK_ROWS, 96)).to(torch.bfloat16)
    few = torch.cat([multiply(part) for part in rows.split(64)])
    error = (multiply(rows).float() - few.float()).norm() / few.float().norm()
    assert float(error) < 2 * torch.finfo(torch.bfloat16).eps  # a mistake is off by about 1
