"""bfloat16 products in float32, on a processor that is slow at bfloat16."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

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


TRIED = ("mv", "C", "oneDNN")


@pytest.mark.skipif(kernels._multiply() is None, reason="there is no C compiler here")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("fastest", TRIED)
def test_one_row_is_multiplied_by_the_kernel_that_was_fastest(
    monkeypatch: pytest.MonkeyPatch, fastest: str, bias: bool
) -> None:
    layer = torch.nn.Linear(64, 40, bias=bias, dtype=torch.bfloat16).eval()
    seconds = iter([1.0 if name == fastest else 2.0 for name in TRIED])
    monkeypatch.setattr(kernels, "_FASTEST", {})
    monkeypatch.setattr(
        kernels, "_seconds", lambda compute: compute() is not None and next(seconds)
    )
    called: list[str] = []

    def recorded(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            called.append(name)
            return compute(*given)

        return call

    product = kernels.product([layer])
    monkeypatch.setattr(torch, "mv", recorded("mv", torch.mv))
    in_c = kernels._multiply()
    monkeypatch.setattr(kernels, "_multiply", lambda: recorded("C", in_c))
    row = torch.randn(1, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert product is not None
    with torch.inference_mode():
        assert torch.allclose(product(row), layer(row), rtol=2**-6, atol=2e-3)
        apart = torch.stack([row, row], -1)[..., 0]  # not contiguous
        assert torch.equal(product(apart), product(row))
        assert torch.allclose(product(row.expand(2, -1)), layer(row), rtol=2**-6, atol=2e-3)
    assert called == ([] if fastest == "oneDNN" else 3 * [fastest])
    assert kernels.product([layer]) is not None  # the choice is known: nothing is tried again


@pytest.mark.skipif(kernels._multiply() is None, reason="there is no C compiler here")
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (7, 33), (960, 576), (5000, 130)])
def test_the_product_in_c(outputs: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(outputs, inputs, generator=generator).bfloat16()
    row = torch.randn(1, inputs, generator=generator).bfloat16()
    exact = row.double() @ weight.double().T
    found = kernels._product_in_c(weight, row)
    assert found.shape == (1, outputs)
    assert torch.allclose(found.double(), exact, rtol=2**-8, atol=1e-4 * inputs**0.5)


def test_float32_and_a_machine_without_a_compiler_take_torch_s_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "_FASTEST", {})
    seconds = iter([2.0, 1.0, 2.0, 1.0])
    monkeypatch.setattr(
        kernels, "_seconds", lambda compute: compute() is not None and next(seconds)
    )
    assert kernels._fastest(torch.zeros(4, 4)) is None
    monkeypatch.setattr(kernels, "_multiply", lambda: None)
    assert kernels._fastest(torch.zeros(4, 4, dtype=torch.bfloat16)) is None
    assert next(seconds, None) is None
