"""bfloat16 products in float32, on a processor that is slow at bfloat16."""

from __future__ import annotations

import contextlib

import pytest
import torch

from quantchat.worker.decode.cpu import kernels
from quantchat.worker.scoring.products import fast_products

CPU = torch.device("cpu")


def test_products_are_rounded_to_bfloat16_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "NATIVE_BF16", False)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(3, 5, 64, generator=generator).bfloat16()
    weight = torch.randn(7, 64, generator=generator).bfloat16()
    bias = torch.randn(7, generator=generator).bfloat16()
    exact = rows.double() @ weight.double().T
    with fast_products(CPU):
        found = [
            torch.matmul(rows, weight.T),
            rows @ weight.T,
            torch.bmm(rows, weight.T.expand(3, 64, 7)),
            torch.nn.functional.linear(rows, weight),
        ]
        biased = torch.nn.functional.linear(rows, weight, bias=bias)
        assert torch.matmul(rows.float(), weight.float().T).dtype == torch.float32
    for one in found:
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, found[0])
        assert torch.allclose(one.double(), exact, rtol=2**-8, atol=1e-4)
    assert torch.allclose(biased.double(), exact + bias.double(), rtol=2**-8, atol=1e-4)


def test_other_devices_and_processors_compute_as_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "NATIVE_BF16", True)
    assert isinstance(fast_products(CPU), contextlib.nullcontext)
    monkeypatch.setattr(kernels, "NATIVE_BF16", False)
    assert isinstance(fast_products(torch.device("cuda:0")), contextlib.nullcontext)


@pytest.mark.parametrize("plain", [True, False])
def test_one_row_is_multiplied_by_the_kernel_that_was_faster(
    monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    layer = torch.nn.Linear(64, 40, bias=False, dtype=torch.bfloat16).eval()
    seconds = iter([1.0, 2.0] if plain else [2.0, 1.0])
    monkeypatch.setattr(kernels, "_PLAIN", {})
    monkeypatch.setattr(
        kernels, "_seconds", lambda compute: compute() is not None and next(seconds)
    )
    mv = torch.mv
    called: list[str] = []

    def recorded(*given: torch.Tensor) -> torch.Tensor:
        called.append("mv")
        return mv(*given)

    product = kernels.product([layer])
    monkeypatch.setattr(torch, "mv", recorded)
    row = torch.randn(1, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert product is not None
    with torch.inference_mode():
        assert torch.allclose(product(row), layer(row), rtol=2**-7, atol=1e-3)
        assert torch.allclose(product(row.expand(2, -1)), layer(row), rtol=2**-7, atol=1e-3)
    assert called == (["mv"] if plain else [])
    assert kernels.product([layer]) is not None  # the choice is known: nothing is tried again
