"""Print how the time of one token is divided between kernels and the gaps between them.

`python benchmarks/token_profile.py --shape llama-2-7b --variant "NF4, double quant"` loads the
variant with random weights and decodes some tokens with torch's profiler. For one token it prints
the time, how long the device was busy, how many kernels ran, which kernels took longest, and the
share of the memory bandwidth that was used to read weights and KV cache. On a CPU, torch's
operators are listed in place of kernels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import as_worker  # noqa: F401
import torch
from bandwidth import bandwidth
from llama7b.checkpoints import check_disk_space, checkpoint, made_in
from llama7b.shapes import SHAPES
from llama7b.variants import VARIANTS
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from quantchat.worker.decode.modes import choose
from quantchat.worker.loaders import load
from quantchat.worker.memory import TensorBytes

CONTEXT = 128
"""Tokens in the KV cache before the first measured token."""
STEPS = 8
"""Number of tokens that are measured."""
LONGEST = 12
"""Number of kernels that are printed."""


def main() -> None:
    """Load a variant, decode, and print where the time goes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_gpu = torch.cuda.is_available()
    parser.add_argument(
        "--shape", choices=list(SHAPES), default="llama-2-7b" if on_gpu else "small"
    )
    parser.add_argument("--variant", choices=list(VARIANTS), default="NF4, double quant")
    parser.add_argument("--mode", default="auto")
    parser.add_argument(
        "--folder",
        type=Path,
        help="keep the checkpoint in this folder, as llama7b does; by default it is deleted",
    )
    given = parser.parse_args()
    device = "cuda" if on_gpu else "cpu"
    one = VARIANTS[given.variant]
    with made_in(given.folder) as folder:
        check_disk_space(folder, given.shape, [one.source])
        made = checkpoint(folder, given.shape, one.source)
        loaded = load(one.load(made, device), lambda stage: None)
    chosen = choose(loaded, given.mode, lambda stage: None)
    step = chosen.loop._step  # type: ignore[attr-defined]
    token = torch.zeros((1, 1), dtype=torch.long, device=loaded.input_device)
    step.run(token.expand(1, CONTEXT).contiguous())
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    seconds = statistics.median(_timed(step, token, wait) for _ in range(STEPS))
    kinds = [ProfilerActivity.CUDA] if on_gpu else []
    with profile(activities=[ProfilerActivity.CPU, *kinds]) as trace:
        for _ in range(STEPS):
            step.run(token)
        wait()
    print(f"{given.variant}, {given.shape}, {loaded.kernel}, {chosen.name}, {loaded.device}")
    _print(trace, seconds, _bytes(loaded, step), bandwidth(0, device).measured, on_gpu)


def _timed(step: Any, token: Any, wait: Any) -> float:
    wait()
    began = time.perf_counter()
    step.run(token)
    wait()
    return time.perf_counter() - began


def _bytes(loaded: Any, step: Any) -> int:
    """Return the bytes that a token reads: all weights except the input embedding, and KV cache.

    This includes the scales: bitsandbytes stores them as attributes of the parameters, where torch
    does not list them.
    """
    model = loaded.model
    held = TensorBytes.of(model).by_dtype.total()
    return held - int(model.get_input_embeddings().weight.nbytes) + int(step.kv_bytes())


def spent(averages: Iterable[Any], on_gpu: bool) -> dict[str, tuple[float, int]]:
    """Return microseconds and number of runs over all steps, by kernel; on a CPU by operator.

    On a GPU, only kernels are counted. The profiler's events of CPU operators include the time of
    the kernels that they launched, and its annotations include the operators inside them, so each
    kernel would count several times (torch's own total leaves out the same events:
    `torch/autograd/profiler_util.py`).
    """
    times: dict[str, tuple[float, int]] = {}
    for event in averages:
        if on_gpu and (event.device_type == DeviceType.CPU or event.is_user_annotation):
            continue
        taken = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if taken:
            times[event.key] = (taken, event.count)
    return times


def _print(trace: Any, seconds: float, read: int, bandwidth_s: float, on_gpu: bool) -> None:
    times = spent(trace.key_averages(), on_gpu)
    busy_us = sum(taken for taken, _ in times.values()) / STEPS
    kernels = sum(count for _, count in times.values()) // STEPS
    print(f"one token     {seconds * 1e6:10.0f} us, not profiled")
    print(f"busy          {busy_us:10.0f} us in {kernels} kernels, profiled")
    print(f"not busy      {max(0.0, seconds * 1e6 - busy_us):10.0f} us")
    print(f"bytes         {read / 1e6:10.1f} MB, {read / seconds / bandwidth_s:.0%} of bandwidth")
    for name, (taken, count) in sorted(times.items(), key=lambda item: -item[1][0])[:LONGEST]:
        print(f"{taken / STEPS:10.1f} us {count // STEPS:5d} x  {name[:80]}")


if __name__ == "__main__":
    main()
