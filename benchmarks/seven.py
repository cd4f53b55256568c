"""Speed and memory of a model of Llama's shapes, by quantization, kernel and decode mode.

`python benchmarks/seven.py` makes checkpoints of Llama-2-7B's shape with random weights, measures
each variant in each mode against transformers' `generate` in the same round, then the best GPTQ
and NF4 together and in turn. `--shape` takes another (13B, Llama-3.1-8B), `--variant` and `--mode`
may be given several times, and what a run measured is kept in `benchmarks/results/seven-….json`
after each variant, beside what earlier runs on the same device measured. Nothing is downloaded.

On a CPU it takes a small shape by itself, to show that all of it runs; a kernel that wants a GPU is
written down with its reason. `--table` prints what is kept.

MBU is bytes read for a token (weights without the input embedding, and the KV cache) × decode
throughput ÷ the bandwidth measured before, on the same device.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from bandwidth import bandwidth
from driving import circumstances
from seven_measure import Asked, pair, variant
from seven_table import table
from seven_variants import VARIANTS, Source
from shapes import SHAPES, write_dense, write_gptq

from quantchat.metrics.sampler import DeviceSampler

RESULTS = Path(__file__).parent / "results"
MODES = ("generate", "eager", "compile", "graph")
CONTEXTS = {"cuda": (128, 512, 2048, 8192), "cpu": (128, 512)}


def checkpoint(folder: Path, shape: str, source: Source) -> Path:
    """The checkpoint in `folder` that `source` loads, made where it is not there."""
    made = folder / source.name
    if not made.is_dir():
        made.mkdir(parents=True)
        print(f"writing {shape}, {source.name}", flush=True)
        if source.bits:
            write_gptq(made, SHAPES[shape], source.bits, source.group)
        else:
            write_dense(made, SHAPES[shape])
    return made


async def measure(
    given: argparse.Namespace, result: dict[str, Any], file: Path, device: str
) -> None:
    """Measure all that was asked for into `result`, writing it to `file` after each variant."""
    threads = given.threads if device == "cpu" else 0
    result.update(circumstances(f"seven.py {given.options}"))
    result["bandwidth_bytes_s"] = round(bandwidth(threads, device).measured)
    asked = Asked(
        given.shape, given.context or CONTEXTS[device], given.tokens, given.rounds, threads
    )
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="quantchat-seven-") as temporary:
        folder = Path(temporary)
        measured = result.setdefault("variants", {})
        for label in given.variant or VARIANTS:
            one = VARIANTS[label]
            load = one.load(checkpoint(folder, given.shape, one.source), device)
            measured[label] = await variant(label, load, given.mode or MODES, asked)
            keep(file, result)
        if not given.no_pair:
            loads = {
                label: one.load(checkpoint(folder, given.shape, one.source), device)
                for label, one in VARIANTS.items()
            }
            result["pair"] = await pair(measured, loads, asked)
            keep(file, result)


def keep(file: Path, result: dict[str, Any]) -> None:
    """Write what is there so far."""
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure and write the result, or print the table of the kept one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shape", choices=list(SHAPES), help="default: 7B on a GPU, small on a CPU"
    )
    parser.add_argument("--variant", action="append", choices=list(VARIANTS))
    parser.add_argument("--mode", action="append", choices=MODES)
    parser.add_argument("--context", action="append", type=int, help="prompt tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2, help="on a CPU")
    parser.add_argument("--no-pair", action="store_true", help="leave out together and in turn")
    parser.add_argument("--folder", help="where checkpoints are made: 55 GB for 13B")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what is kept")
    given = parser.parse_args()
    sampler = DeviceSampler()
    machine = sampler.sample()
    sampler.close()
    device = "cuda" if machine.gpus else "cpu"
    given.shape = given.shape or ("llama-2-7b" if device == "cuda" else "small")
    given.options = f"--shape {given.shape} --rounds {given.rounds} --tokens {given.tokens}"
    file = given.results / f"seven-{given.shape}-{device}.json"
    if not given.table:
        result = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        name = machine.gpus[0].name if machine.gpus else machine.host.cpu
        result.update(device=name, shape=given.shape)
        asyncio.run(measure(given, result, file, device))
    print(table(json.loads(file.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
