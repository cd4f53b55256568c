"""Fused weights, and the `forward` of the layers from which they were taken."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

from quantchat.worker.decode.cpu.fused_weights import unfuse, unfused_weights


class Careless(torch.nn.Module):  # type: ignore[misc]
    """Reads its scales as the kernels do: from where they begin, whatever their strides."""

    scales_and_zeros: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scales = self.scales_and_zeros
        if x.shape[0] == 0:
            raise ValueError("nothing to multiply")
        return x @ torch.as_strided(scales, scales.shape, (scales.shape[1], 1))


class Packed(torch.nn.Module):  # type: ignore[misc]
    """As bitsandbytes' layers, which keep theirs in the state of the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.weight.quant_state = types.SimpleNamespace(absmax=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        absmax = self.weight.quant_state.absmax
        return x @ torch.as_strided(absmax, absmax.shape, (absmax.shape[1], 1))


def scales_of(layer: Any) -> torch.Tensor:
    scales = getattr(layer, "scales_and_zeros", None)
    found: torch.Tensor = layer.weight.quant_state.absmax if scales is None else scales
    return found


def give(layer: Any, scales: torch.Tensor) -> None:
    if isinstance(layer, Packed):
        layer.weight.quant_state.absmax = scales
    else:
        layer.scales_and_zeros = scales


Block = tuple[Any, list[torch.Tensor]]


def in_a_block_of(make: Callable[[], Any]) -> Block:
    """Two layers with the columns of one block, and what each should multiply by."""
    block = torch.arange(24.0).view(4, 6)
    layers = [make(), make()]
    columns = block.split([4, 2], dim=1)
    for layer, own in zip(layers, columns, strict=True):
        give(layer, own)
    return torch.nn.Sequential(*layers), [own.clone() for own in columns]


@pytest.fixture(params=[Careless, Packed])
def in_a_block(request: pytest.FixtureRequest) -> Block:
    return in_a_block_of(request.param)


def test_a_layer_reads_its_own_columns_and_none_is_kept_as_a_copy(in_a_block: Block) -> None:
    model, own = in_a_block
    x = torch.ones(3, 4)
    expected = x @ own[0] @ own[1]
    assert not torch.equal(model(x), expected)  # what would be shown without it
    with unfused_weights(model):
        assert torch.equal(model(x), expected)
        assert not any(scales_of(layer).is_contiguous() for layer in model)
    assert not torch.equal(model(x), expected)


def test_what_fails_in_the_middle_leaves_no_copy_either() -> None:
    model, _ = in_a_block_of(Careless)
    with pytest.raises(ValueError, match="nothing to multiply"), unfused_weights(model):
        model(torch.ones(0, 4))
    assert not any(scales_of(layer).is_contiguous() for layer in model)
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks


def test_parted_for_good(in_a_block: Block) -> None:
    model, own = in_a_block
    unfuse(model)
    x = torch.ones(2, 4)
    assert torch.equal(model(x), x @ own[0] @ own[1])
