"""What the profile of one token counts, on events like those of torch's profiler for a GPU."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def token_profile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    with patch.dict(os.environ):  # it makes its own a worker's
        yield importlib.import_module("token_profile")


def test_a_kernel_counts_once_though_its_operator_carries_its_time(token_profile: Any) -> None:
    from torch.autograd import DeviceType
    from torch.autograd.profiler_util import FunctionEvent

    seen = partial(FunctionEvent, use_device="cuda")
    on_gpu = partial(seen, thread=0, device_type=DeviceType.CUDA)
    operator = seen(0, "aten::mm", 1, 0.0, 5.0)
    operator.append_kernel("gemm", 0, 30)
    kernel = on_gpu(1, "gemm", start_us=10.0, end_us=40.0)
    copy = on_gpu(2, "Memcpy DtoH", start_us=40.0, end_us=42.0)
    # As record_function gives it on the GPU's own timeline.
    whole = on_gpu(3, "step", start_us=10.0, end_us=42.0, is_user_annotation=True)
    events = [operator, kernel, copy, whole]

    assert token_profile.spent(events, on_gpu=True) == {
        "gemm": (30.0, 1),
        "Memcpy DtoH": (2.0, 1),
    }
    assert token_profile.spent(events, on_gpu=False)["aten::mm"] == (5.0, 1)


def test_the_scales_of_bitsandbytes_are_read_for_each_token_too(token_profile: Any) -> None:
    import torch

    embedding, linear = torch.nn.Embedding(10, 8), torch.nn.Linear(8, 4, bias=False)
    scales = SimpleNamespace(absmax=torch.ones(5), state2=SimpleNamespace(absmax=torch.ones(3)))
    linear.weight.quant_state = scales
    model = torch.nn.Sequential(embedding, linear)
    model.get_input_embeddings = lambda: embedding

    read = token_profile._bytes(SimpleNamespace(model=model), SimpleNamespace(kv_bytes=lambda: 100))

    assert read == 4 * (8 * 4 + 5 + 3) + 100
