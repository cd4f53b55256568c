"""How fast a device reads its memory: what MBU is measured against."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import sys, time, torch
device, threads = sys.argv[1], int(sys.argv[2])
if threads:
    torch.set_num_threads(threads)
wait = torch.cuda.synchronize if device != "cpu" else lambda: None
block = torch.ones(2**29, device=device)  # 2 GiB: more than any cache holds
times = []
for _ in range(8):
    began = time.perf_counter()
    block.sum()
    wait()
    times.append(time.perf_counter() - began)
print(block.nbytes / sorted(times[1:])[3])
"""


def bandwidth(threads: int, device: str = "cpu") -> float:
    """Bytes a second at which `device` reads memory: the median of seven sums over 2 GiB.

    `threads` are the CPU's; 0 leaves torch its own choice. In a process of its own, which gives
    the memory back.
    """
    script = [sys.executable, "-c", _SCRIPT, device, str(threads)]
    return float(subprocess.run(script, check=True, capture_output=True, text=True).stdout)
