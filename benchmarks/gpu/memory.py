"""Prints the planned memory, the memory ledger and the figures of nvidia-smi, to compare them.

    python benchmarks/gpu/memory.py SMI.csv SNAPSHOT.json...

SMI.csv has lines "pid, MiB", as `nvidia-smi --query-compute-apps=pid,used_gpu_memory
--format=csv,noheader,nounits` prints them, run once a second. The planned memory is the estimate of
`quantchat plan` that a snapshot contains.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

MIB = 2**20
PARTS = ("weights", "kv_cache", "other_live", "slack", "non_torch", "process", "peak")


def most_by_pid(file: Path) -> dict[int, int]:
    """Return the most MiB that nvidia-smi reported for each pid; empty if it reported nothing."""
    most: defaultdict[int, int] = defaultdict(int)
    if file.is_file():
        with file.open(encoding="utf-8", errors="replace", newline="") as lines:
            for row in csv.reader(lines):
                numbers = [cell.strip() for cell in row]
                if len(numbers) == 2 and all(map(str.isdecimal, numbers)):
                    pid, mib = map(int, numbers)
                    most[pid] = max(most[pid], mib)
    return dict(most)


def variant_lines(one: dict[str, Any]) -> Iterator[str]:
    """Yield lines for the variant `one` of a snapshot: what ran, then its memory in MiB by part.

    The planned size stands beside each part that was planned.
    """
    ledger, plan = one.get("ledger") or {}, one.get("predicted") or {}
    memory, ran = one.get("memory") or {}, one.get("model_info") or {}
    attention = f"{ran.get('attention')} ({ran.get('attention_backend') or 'backend not reported'})"
    yield (
        f"  {one['label']}: {ran.get('kernel')}, {ran.get('decode')}, {ran.get('dtype')}, "
        f"{attention}, {one['state']}; {one['note']}"
    )
    if ran.get("slow_kernel"):
        yield f"    SLOW KERNEL: {ran['slow_kernel']}"
    for part in PARTS:
        planned = f"   planned {_mib(plan.get(part))}" if part in plan else ""
        yield f"    {part:11} {_mib(ledger.get(part)):>8} MiB{planned}"
    allowed = ("weights", "kv_cache", "activations", "runtime")
    in_all = sum(max(0, plan.get(part) or 0) for part in allowed)
    source = f"{memory.get('source')} {memory.get('reason', '')}".strip()
    shown = _mib(memory.get("bytes"))
    yield f"    shown       {shown:>8} MiB from {source}; planned {_mib(in_all)}"


def answer_line(answer: dict[str, Any]) -> str:
    """Return a line with throughput and latencies; empty if the answer has fewer than 3 tokens."""
    times = answer["times_ns"]
    if len(times) < 3:
        return ""
    gaps = sorted((later - earlier) / 1e6 for earlier, later in pairwise(times))
    rate = 1e9 * (len(times) - 1) / (times[-1] - times[0])
    first = (times[0] - answer["received_ns"]) / 1e6
    failed = f", FAILED {answer['failure']}" if answer.get("failure") else ""
    return (
        f"    {answer['variant']}, {answer['order']}: {len(times)} tokens, {rate:.1f} tok/s, TTFT "
        f"{first:.1f} ms, ITL p50 {gaps[len(gaps) // 2]:.2f} p99 {gaps[int(len(gaps) * 0.99)]:.2f} "
        f"max {gaps[-1]:.1f} ms{failed}"
    )


def _mib(count: int | None) -> str:
    return "–" if count is None or count < 0 else f"{count / MIB:.0f}"


def main() -> None:
    """Print nvidia-smi's figures, then variants and answers of each snapshot."""
    smi, *snapshots = map(Path, sys.argv[1:])
    print("nvidia-smi, most MiB by pid:", most_by_pid(smi) or "none (nvidia-smi reported none)")
    for file in snapshots:
        body = json.loads(file.read_text(encoding="utf-8"))
        device = body["environment"]["device"]
        names = ", ".join(gpu["name"] for gpu in device["gpus"]) or "no GPU"
        print(f"\n{file.name}: {names}, driver {device['driver'] or '–'}")
        for one in body["variants"]:
            print(*variant_lines(one), sep="\n")
        lines = [answer_line(one) for turn in body["turns"] for one in turn["answers"]]
        print(*filter(None, lines), sep="\n")


if __name__ == "__main__":
    main()
