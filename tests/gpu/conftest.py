"""What the tests here want of the machine; without it they skip, and say why."""

from __future__ import annotations

from typing import Any

import pytest

from quantchat.metrics.sampler import DeviceSampler


@pytest.fixture
def torch() -> Any:
    """torch, where it has a CUDA device."""
    no_gpu = DeviceSampler().sample().no_gpu
    if no_gpu:
        pytest.skip(no_gpu)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return torch
