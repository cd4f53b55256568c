"""Measure speed and memory of Llama's layer sizes, by quantization, kernel and decode mode.

`python benchmarks/llama7b` makes checkpoints of Llama-2-7B's shape (its layer sizes) with random
weights. It measures each variant in each decode mode and compares it with `generate` in the same
round. Then it measures the fastest GPTQ 4-bit and NF4 variants together and one at a time.
`--shape` chooses another shape (13B, Llama-3.1-8B); `--variant` and `--mode` may be given several
times. Nothing is downloaded.

The whole benchmark takes an hour. It begins with the most important figures, which takes minutes:
NF4, bf16 and GPTQ 4-bit with Marlin in decode mode `graph` (`eager` on a CPU) at the shortest
context, each compared with `generate`. `compile` comes last.

Each figure is saved as soon as it is measured, in `benchmarks/results/llama7b-SHAPE-DEVICE.json`,
beside the figures of earlier runs on the same device. The same command with `--missing` continues a
run that was stopped; `--folder` keeps the checkpoints for that.

On a CPU the default is a small shape, to check that everything runs. For a kernel that needs a GPU,
the result then says why it did not run. `--table` prints the saved results of each device.

MBU is the bytes read per token (weights without the input embedding, and the KV cache) × decode
throughput ÷ the memory bandwidth, which is measured first, on the same device in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bandwidth import bandwidth
from driving import circumstances

from llama7b.checkpoints import GB, check_disk_space, checkpoint, made_in
from llama7b.measure import Asked, Progress, variant
from llama7b.pair import FAMILIES, fastest, pair
from llama7b.results import PREFIX, SavedResults, read
from llama7b.shapes import SHAPES
from llama7b.table import table
from llama7b.variants import VARIANTS
from quantchat.common.versions import versions
from quantchat.system.gpus import GpuSample
from quantchat.system.sampler import DeviceSample, DeviceSampler
from quantchat.wire.messages import LoadModel

RESULTS = Path(__file__).parents[1] / "results"
MODES = ("generate", "graph", "eager", "compile")
CONTEXTS = {"cuda": (128, 512, 2048, 8192), "cpu": (128, 512)}
LIBRARIES = ("torch", "transformers", "gptqmodel", "bitsandbytes")
FIRST = ("NF4", "bf16", "GPTQ 4-bit, Marlin", "NF4, double quant")
"""Variants that are measured first (in mode `graph`, or `eager` on a CPU, at the shortest context)
unless the user names variants or modes. Marlin is not the first, because its kernel may have to be
compiled."""
LAST = "compile"
"""The decode mode that is measured last, because it takes minutes to prepare."""
OTHERS_MAY_HOLD = 10**9
"""Bytes of GPU memory in use that may belong to a desktop. If more is in use, another program
probably computes on the GPU."""


def measure(
    given: argparse.Namespace, asked: Asked, machine: DeviceSample, saved: SavedResults
) -> None:
    """Measure what `given` selects, and save it."""
    wanted = _wanted(given, asked, saved)
    with_pair = given.pair and not (given.missing and "in turn" in saved.result.get("pair", {}))
    if not wanted and not with_pair:
        return
    device = "cuda" if machine.gpus else "cpu"
    with made_in(given.folder) as folder:
        sources = {VARIANTS[label].source for label in wanted}
        if with_pair:
            sources |= {one.source for label, one in VARIANTS.items() if label.startswith(FAMILIES)}
        check_disk_space(folder, asked.shape, sources)
        if machine.gpus:
            _print_memory(machine.gpus[0], asked.shape, list(wanted))
        print(f"reading the memory of the {device} device", flush=True)
        speed = bandwidth(asked.threads, device)
        saved.begin(
            {
                **circumstances(_command(given, asked)),
                "libraries": versions(LIBRARIES),
                "driver": machine.driver,
                "bandwidth_bytes_s": round(speed.measured),
                "peak_bytes_s": speed.peak,
            }
        )
        passes = _in_order(given, asked, wanted, "graph" if machine.gpus else "eager")
        progress = Progress(sum(len(modes) for _, modes in passes) + with_pair)

        def load(label: str) -> LoadModel:
            one = VARIANTS[label]
            return one.load(checkpoint(folder, asked.shape, one.source), device)

        # Each variant has an event loop of its own. So Ctrl+C interrupts at once what blocks
        # between two variants, such as writing a checkpoint.
        for label, modes in passes:
            asyncio.run(variant(label, load(label), modes, asked, saved, progress))
        if with_pair:
            progress.begin("the fastest GPTQ 4-bit and NF4, in turn and together")
            found = _pair(load, asked, saved)
            if "not_run" in found:
                print(f"  not run: {found['not_run']}", flush=True)
            saved.add_pair(found)


def _asked(given: argparse.Namespace, on_gpu: bool) -> Asked:
    contexts = given.context or CONTEXTS["cuda" if on_gpu else "cpu"]
    return Asked(
        given.shape or ("llama-2-7b" if on_gpu else "small"),
        list(dict.fromkeys(contexts)),
        given.tokens,
        given.rounds,
        0 if on_gpu else given.threads,
    )


def _wanted(
    given: argparse.Namespace, asked: Asked, saved: SavedResults
) -> dict[str, dict[str, list[int]]]:
    """Return the contexts to measure, by variant and mode."""
    wanted: dict[str, dict[str, list[int]]] = {}
    for label in given.variant or VARIANTS:
        for mode in given.mode or MODES:
            left = list(asked.contexts)
            if given.missing:
                left = saved.left(label, mode, left)
            if left:
                wanted.setdefault(label, {})[mode] = left
    return wanted


def _in_order(
    given: argparse.Namespace, asked: Asked, wanted: dict[str, dict[str, list[int]]], best: str
) -> list[tuple[str, dict[str, list[int]]]]:
    """Divide `wanted` into passes (a variant with contexts by mode), the most important first.

    So a run that is stopped after some minutes has the most important figures. If the user named
    variants or modes, the order stays. `best` is the decode mode of the first passes.
    """
    if given.variant or given.mode:
        return list(wanted.items())
    shortest = asked.contexts[0]
    first = [name for name in FIRST if shortest in wanted.get(name, {}).get(best, [])]
    for name in first:
        wanted[name][best].remove(shortest)
        wanted[name] = {mode: contexts for mode, contexts in wanted[name].items() if contexts}
    passes = [(name, {best: [shortest]}) for name in first]
    for is_last in (False, True):
        for name, modes in wanted.items():
            if part := {mode: one for mode, one in modes.items() if (mode == LAST) == is_last}:
                passes.append((name, part))
    return passes


def _pair(load: Callable[[str], LoadModel], asked: Asked, saved: SavedResults) -> dict[str, Any]:
    modes = {}
    for family in FAMILIES:
        best = fastest(saved.variants, family, asked.contexts[0])
        if best is None:
            return {"not_run": f"no {family} was measured at {asked.contexts[0]}"}
        modes[best.label] = best.mode
    return asyncio.run(
        pair({label: replace(load(label), decode=mode) for label, mode in modes.items()}, asked)
    )


def _print_memory(gpu: GpuSample, shape: str, labels: list[str]) -> None:
    """Print which variants may not fit into the GPU's memory, and whether other programs use it."""
    if gpu.memory_free is None or gpu.memory_used is None:
        return
    sizes = {label: SHAPES[shape].size(VARIANTS[label].bits, 128) for label in labels}
    large = [label for label, size in sizes.items() if 2 * size > gpu.memory_free]
    parts = [f"{gpu.memory_free / GB:.1f} GB of the GPU's memory are free"]
    if gpu.memory_used > OTHERS_MAY_HOLD:
        parts.append(
            f"{gpu.memory_used / GB:.1f} GB are in use: other programs slow this benchmark"
        )
    if large:
        parts.append(f"loaded twice, beside generate, these may not fit: {', '.join(large)}")
    print("; ".join(parts), flush=True)


def _command(given: argparse.Namespace, asked: Asked) -> str:
    """Return the command that repeats the measurement, without the folders of its files."""
    words = ["llama7b", "--shape", asked.shape, "--rounds", str(asked.rounds)]
    words += ["--tokens", str(asked.tokens)]
    if asked.threads:
        words += ["--threads", str(asked.threads)]
    for option in ("variant", "mode", "context"):
        for value in getattr(given, option) or ():
            words += [f"--{option}", str(value)]
    words += ["--missing"] * given.missing + ["--no-pair"] * (not given.pair)
    return shlex.join(words)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shape", choices=list(SHAPES), help="default: 7B on a GPU, small on a CPU"
    )
    parser.add_argument("--variant", action="append", choices=list(VARIANTS))
    parser.add_argument("--mode", action="append", choices=MODES)
    parser.add_argument("--context", action="append", type=_at_least(1), help="prompt tokens")
    parser.add_argument("--rounds", type=_at_least(1), default=3)
    parser.add_argument("--tokens", type=_at_least(2), default=128)
    parser.add_argument("--threads", type=_at_least(1), default=2, help="CPU threads")
    parser.add_argument("--missing", action="store_true", help="only what has no figures yet")
    parser.add_argument(
        "--no-pair", dest="pair", action="store_false", help="do not measure two variants together"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="keep the checkpoints in this folder (55 GB for 13B); by default they are deleted",
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the saved results")
    return parser.parse_args()


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl+C, so that no worker and no checkpoint is left behind."""
    before = {
        number: signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN  # nohup makes SIGHUP ignored
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    """Measure and print the table, or print the tables of what is saved."""
    given = _arguments()
    if given.table:
        files = sorted(given.results.glob(f"{PREFIX}-{given.shape or '*'}-*.json"))
        if not files:
            raise SystemExit(f"{given.results}: there are no results of this benchmark")
        print("\n\n".join(table(read(file)) for file in files))
        return 0
    sampler = DeviceSampler()
    machine = sampler.sample()
    sampler.close()
    name = machine.gpus[0].name if machine.gpus else machine.host.cpu
    asked = _asked(given, on_gpu=bool(machine.gpus))
    print(f"{asked.shape} on {name}" + ("" if machine.gpus else f": {machine.no_gpu}"), flush=True)
    saved = SavedResults(given.results, asked.shape, name)
    status = 0
    try:
        with _ended_as_by_ctrl_c():
            measure(given, asked, machine, saved)
    except KeyboardInterrupt:
        print("\nstopped: what was measured is saved, the same command with --missing continues")
        status = 130  # what a shell reports for SIGINT
    if saved.variants:
        print(f"\nsaved in {saved.file}\n\n{table(saved.result)}")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
