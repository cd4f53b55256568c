"""The sampler with a real NVIDIA driver."""

from __future__ import annotations

from typing import Any

import pytest

from quantchat.system.sampler import DeviceSampler

pytestmark = pytest.mark.gpu


def test_a_real_gpu_is_read() -> None:
    sampler = DeviceSampler()
    sample = sampler.sample()
    if not sample.gpus:
        pytest.skip(sample.no_gpu)
    assert sample.driver
    for gpu in sample.gpus:
        assert gpu.uuid.startswith(("GPU-", "MIG-"))
        assert gpu.memory_total is None or gpu.memory_total > 2**30
        for name in ("memory_used", "utilisation", "temperature_c", "power_w", "sm_clock_mhz"):
            assert (getattr(gpu, name) is None) == (name in gpu.missing), name
    sampler.close()


def test_what_a_process_holds_is_at_least_what_it_allocated(torch: Any) -> None:
    sampler = DeviceSampler()
    import os

    from quantchat.wire.variant import Ledger

    held = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    reserved = torch.cuda.memory_reserved()
    ledger = Ledger("cuda:0", reserved, {}, 0, 0, 0, -1, -1, reserved, 1)
    memory = sampler.process_memory(os.getpid(), ledger)
    del held
    # On each machine one of the labelled figures, and never less than torch itself holds.
    assert memory.source in ("nvml", "torch")
    assert memory.bytes is not None
    assert memory.bytes >= reserved
    assert (memory.source == "nvml") == (memory.reason == "")
