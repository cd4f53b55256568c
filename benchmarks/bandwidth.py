"""Measures how fast a device reads its memory: the bandwidth with which MBU is computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import NamedTuple

from quantchat.host.worker_process import WORKER_VARIABLES

_SCRIPT = """
import json, statistics, sys, time, torch
device, threads = sys.argv[1], int(sys.argv[2])
if threads:
    torch.set_num_threads(threads)
on_gpu = device != "cpu"
wait = torch.cuda.synchronize if on_gpu else lambda: None
queued = 10 if on_gpu else 1  # so that the time of a launch and of the wait hardly counts
block = torch.ones(2**29, device=device)  # 2 GiB: more than any cache holds

def read():
    began = time.perf_counter()
    for _ in range(queued):
        block.sum()
    wait()
    return queued * block.nbytes / (time.perf_counter() - began)

until = time.perf_counter() + 0.3  # a GPU that idled raises its clocks first
while True:
    read()
    if time.perf_counter() > until:
        break
told = torch.cuda.get_device_properties(device) if on_gpu else None
clock_hz = 1e3 * getattr(told, "memory_clock_rate", 0)
peak = 2 * clock_hz * getattr(told, "memory_bus_width", 0) / 8  # two transfers a clock
print(json.dumps([statistics.median(read() for _ in range(7)), peak or None]))
"""


class Bandwidth(NamedTuple):
    """Memory bandwidth in bytes per second."""

    measured: float
    peak: float | None
    """Computed from the memory's clock and bus width; None if the driver does not report them."""


def bandwidth(threads: int, device: str = "cpu") -> Bandwidth:
    """Measure how fast `device` reads memory, and return the median of seven measurements.

    Each measurement sums a tensor of 2 GiB, once on a CPU and ten times on a GPU. `threads` is the
    number of CPU threads; 0 leaves the choice to torch. A process of its own measures, so that the
    tensor's memory is free afterwards. Raises SystemExit if the device cannot be used.
    """
    script = [sys.executable, "-c", _SCRIPT, device, str(threads)]
    variables = {**WORKER_VARIABLES, **os.environ}  # with a worker's numbering of the GPUs
    run = subprocess.run(script, env=variables, capture_output=True, text=True, check=False)
    if run.returncode:
        reason = (run.stderr.strip() or f"exit status {run.returncode}").splitlines()[-1]
        raise SystemExit(f"{device}: its memory's bandwidth cannot be measured: {reason}")
    return Bandwidth(*json.loads(run.stdout))
