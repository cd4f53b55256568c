"""Measure the cost of sampling the machine's state, as a share of one core.

`python benchmarks/sampler.py` samples the machine and the memory of two processes as often as the
screen does, and measures the processor time that this takes. It does so once without and once with
a thousand other processes that sleep, because the whole process table is read to find the processes
that a worker has started. GPUs are sampled too, if there are any. The exit status is 1 if sampling
takes 1 % of a core or more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from quantchat.app.screens.comparison_view import SAMPLE_EVERY_S
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.variant import Ledger

RESULTS = Path(__file__).parent / "results" / "sampler.json"
GOAL_PERCENT = 1.0
UNKNOWN: dict[str, Any] = {
    "weights": -1,
    "kv_cache": -1,
    "other_live": -1,
    "slack": -1,
    "non_torch": -1,
    "process": -1,
    "peak": -1,
    "at_ns": -1,
}


@contextlib.contextmanager
def sleepers(count: int) -> Iterator[list[int]]:
    """Yield the pids of `count` processes that do nothing."""
    processes = [subprocess.Popen(["sleep", "infinity"]) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def share_of_core(pids: list[int], seconds: float) -> float:
    """Sample for `seconds`; return the share of a core that this takes, in percent.

    The first sample, which opens the GPU driver, is not counted.
    """
    sampler = DeviceSampler()
    device = "cuda:0" if sampler.sample().gpus else "cpu"
    ledger = Ledger(device=device, weights_by_dtype={}, **UNKNOWN)
    began, cost_s, due = time.monotonic(), 0.0, time.monotonic()
    while due - began < seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        before = time.thread_time()
        sampler.sample()
        for pid in pids:
            sampler.process_memory(pid, ledger)
        cost_s += time.thread_time() - before
        due += SAMPLE_EVERY_S
    sampler.close()
    return 100 * cost_s / seconds


def main() -> int:
    """Measure and write the result; 0 if the goal is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    seconds = parser.parse_args().seconds
    shares = {}
    with sleepers(2) as watched:
        for others in (0, 1000):
            with sleepers(others):
                name = f"beside {len(psutil.pids())} processes"
                shares[name] = round(share_of_core(watched, seconds), 3)
    probe = DeviceSampler()
    machine = probe.sample()
    probe.close()
    result = {
        "what": f"percent of a core, sampling every {SAMPLE_EVERY_S} s",
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": f"python benchmarks/sampler.py --seconds {seconds:g}",
        "machine": f"{machine.host.cpu}, {os.cpu_count()} cores",
        "gpus": [gpu.name for gpu in machine.gpus] or machine.no_gpu,
        "python": platform.python_version(),
        "percent_of_a_core": shares,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(shares, indent=2))
    return 0 if max(shares.values()) < GOAL_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
