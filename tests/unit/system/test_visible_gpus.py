"""Which GPU is `cuda:0`: those that CUDA_VISIBLE_DEVICES shows, in its order."""

from __future__ import annotations

import pytest

from quantchat.system.gpus import GpuSample
from quantchat.system.visible_gpus import visible_gpus


def gpu(index: int, mig: bool = False) -> GpuSample:
    return GpuSample(index, f"{'MIG' if mig else 'GPU'}-{index}a", "NVIDIA H100 80GB HBM3", mig=mig)


@pytest.mark.parametrize(
    ("shown", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("1,9,0", [1]),
        ("-1", []),
        ("0,0", [0]),
        ("GPU-1", [1]),
        ("GPU-1, 0", [1, 0]),
        ("MIG-3", [3]),
        ("3", []),
        ("rubbish", []),
    ],
)
def test_cuda_numbers_what_it_is_shown(shown: str | None, indices: list[int]) -> None:
    gpus = [gpu(0), gpu(1), gpu(2)] + ([gpu(3, mig=True)] if shown in ("MIG-3", "3") else [])
    assert [one.index for one in visible_gpus(gpus, shown)] == indices


@pytest.mark.parametrize(("shown", "index"), [(None, 1), ("MIG-2,MIG-1", 2), ("0,MIG-1", 1)])
def test_one_mig_instance_is_all_that_a_process_is_shown(shown: str | None, index: int) -> None:
    assert visible_gpus(machine := [gpu(0), gpu(1, True), gpu(2, True)], shown) == [machine[index]]
