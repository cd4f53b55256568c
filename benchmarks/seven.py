"""Speed and memory of a model of Llama's shapes, by quantization, kernel and decode mode.

`python benchmarks/seven.py` makes checkpoints of Llama-2-7B's shape with random weights, measures
each variant in each mode against transformers' `generate` in the same round, then the best GPTQ
and NF4 together and in turn. `--shape` takes another (13B, Llama-3.1-8B), `--variant` and `--mode`
may be given several times. Nothing is downloaded.

All of it takes an hour. NF4, bf16 and GPTQ 4-bit with Marlin come first, as captured graphs at the
shortest context (`eager` on a CPU), and `generate` beside each: that takes minutes. `compile` comes
last.

Each figure is kept as soon as it is measured, in `benchmarks/results/seven-SHAPE-DEVICE.json`,
beside what earlier runs on the same device measured. A run that was cut off is gone on with by the
same command and `--missing`; `--folder` keeps the checkpoints for it.

On a CPU it takes a small shape by itself, to show that all of it runs; a kernel that wants a GPU is
written down with its reason. `--table` prints what is kept of each device.

MBU is bytes read for a token (weights without the input embedding, and the KV cache) × decode
throughput ÷ the bandwidth measured before, on the same device in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bandwidth import bandwidth
from driving import circumstances
from seven_checkpoints import GB, check_room, checkpoint, made_in
from seven_kept import Kept, read
from seven_measure import Asked, variant
from seven_pair import FAMILIES, fastest, pair
from seven_progress import Progress
from seven_table import table
from seven_variants import VARIANTS
from shapes import SHAPES

from quantchat.common.versions import versions
from quantchat.system.gpus import GpuSample
from quantchat.system.sampler import DeviceSample, DeviceSampler
from quantchat.wire.messages import Load

RESULTS = Path(__file__).parent / "results"
MODES = ("generate", "graph", "eager", "compile")
CONTEXTS = {"cuda": (128, 512, 2048, 8192), "cpu": (128, 512)}
LIBRARIES = ("torch", "transformers", "gptqmodel", "bitsandbytes")
FIRST = ("NF4", "bf16", "GPTQ 4-bit, Marlin", "NF4, double quant")
"""Variants that are measured first, in the best mode at the shortest context, where none is named.
Marlin not the first of them: it may have to be compiled."""
LAST = "compile"
"""The mode that takes longest to be had, by minutes."""
OTHERS_MAY_HOLD = 10**9
"""Bytes of a GPU that a desktop takes; more is somebody who computes."""


def measure(given: argparse.Namespace, asked: Asked, machine: DeviceSample, kept: Kept) -> None:
    """Measure all that was asked for, and keep it."""
    wanted = _wanted(given, asked, kept)
    with_pair = given.pair and not (given.missing and "in turn" in kept.result.get("pair", {}))
    if not wanted and not with_pair:
        return
    device = "cuda" if machine.gpus else "cpu"
    with made_in(given.folder) as folder:
        sources = {VARIANTS[label].source for label in wanted}
        if with_pair:
            sources |= {one.source for label, one in VARIANTS.items() if label.startswith(FAMILIES)}
        check_room(folder, asked.shape, sources)
        if machine.gpus:
            _tell_of_memory(machine.gpus[0], asked.shape, list(wanted))
        print(f"reading the memory of the {device} device", flush=True)
        speed = bandwidth(asked.threads, device)
        kept.begin(
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

        def load(label: str) -> Load:
            one = VARIANTS[label]
            return one.load(checkpoint(folder, asked.shape, one.source), device)

        # A loop for each, so that Ctrl+C ends at once what blocks between them.
        for label, modes in passes:
            asyncio.run(variant(label, load(label), modes, asked, kept, progress))
        if with_pair:
            progress.begin("the fastest GPTQ 4-bit and NF4, in turn and together")
            found = _pair(load, asked, kept)
            if "not_run" in found:
                print(f"  not run: {found['not_run']}", flush=True)
            kept.add_pair(found)


def _asked(given: argparse.Namespace, on_gpu: bool) -> Asked:
    contexts = given.context or CONTEXTS["cuda" if on_gpu else "cpu"]
    return Asked(
        given.shape or ("llama-2-7b" if on_gpu else "small"),
        list(dict.fromkeys(contexts)),
        given.tokens,
        given.rounds,
        0 if on_gpu else given.threads,
    )


def _wanted(given: argparse.Namespace, asked: Asked, kept: Kept) -> dict[str, dict[str, list[int]]]:
    """The contexts to be measured, by variant and mode."""
    wanted: dict[str, dict[str, list[int]]] = {}
    for label in given.variant or VARIANTS:
        for mode in given.mode or MODES:
            left = list(asked.contexts)
            if given.missing:
                left = kept.left(label, mode, left)
            if left:
                wanted.setdefault(label, {})[mode] = left
    return wanted


def _in_order(
    given: argparse.Namespace, asked: Asked, wanted: dict[str, dict[str, list[int]]], best: str
) -> list[tuple[str, dict[str, list[int]]]]:
    """`wanted`, a variant after the other; what is wanted most before all else, if none is named.

    All of it takes an hour, and who stops it after minutes has the figures that matter.
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


def _pair(load: Callable[[str], Load], asked: Asked, kept: Kept) -> dict[str, Any]:
    modes = {}
    for process_tree in FAMILIES:
        best = fastest(kept.variants, process_tree, asked.contexts[0])
        if best is None:
            return {"not_run": f"no {process_tree} was measured at {asked.contexts[0]}"}
        modes[best.label] = best.mode
    return asyncio.run(
        pair({label: replace(load(label), decode=mode) for label, mode in modes.items()}, asked)
    )


def _tell_of_memory(gpu: GpuSample, shape: str, labels: list[str]) -> None:
    """Say what may not fit, and that somebody else is there: both make other figures."""
    if gpu.memory_free is None or gpu.memory_used is None:
        return
    sizes = {label: SHAPES[shape].size(VARIANTS[label].bits, 128) for label in labels}
    large = [label for label, size in sizes.items() if 2 * size > gpu.memory_free]
    parts = [f"{gpu.memory_free / GB:.1f} GB of the GPU's memory are free"]
    if gpu.memory_used > OTHERS_MAY_HOLD:
        parts.append(f"{gpu.memory_used / GB:.1f} GB are in use: what runs there slows all of this")
    if large:
        parts.append(f"loaded twice, beside generate, these may not fit: {', '.join(large)}")
    print("; ".join(parts), flush=True)


def _command(given: argparse.Namespace, asked: Asked) -> str:
    """What measures the same again; not where its files are put."""
    words = ["seven.py", "--shape", asked.shape, "--rounds", str(asked.rounds)]
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
    parser.add_argument("--threads", type=_at_least(1), default=2, help="on a CPU")
    parser.add_argument("--missing", action="store_true", help="only what has no figures yet")
    parser.add_argument(
        "--no-pair", dest="pair", action="store_false", help="leave out together and in turn"
    )
    parser.add_argument(
        "--folder", type=Path, help="keep the checkpoints there: 55 GB for 13B; else they go"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what is kept")
    return parser.parse_args()


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """A lost connection or a job's end leaves no worker and no checkpoint behind either."""
    before = {
        number: signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN  # as nohup has it
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    """Measure and print the table, or print the tables of what is kept."""
    given = _arguments()
    if given.table:
        files = sorted(given.results.glob(f"seven-{given.shape or '*'}-*.json"))
        if not files:
            raise SystemExit(f"{given.results}: no result of seven.py is kept there")
        print("\n\n".join(table(read(file)) for file in files))
        return 0
    sampler = DeviceSampler()
    machine = sampler.sample()
    sampler.close()
    name = machine.gpus[0].name if machine.gpus else machine.host.cpu
    asked = _asked(given, on_gpu=bool(machine.gpus))
    print(f"{asked.shape} on {name}" + ("" if machine.gpus else f": {machine.no_gpu}"), flush=True)
    kept = Kept(given.results, asked.shape, name)
    status = 0
    try:
        with _ended_as_by_ctrl_c():
            measure(given, asked, machine, kept)
    except KeyboardInterrupt:
        print("\nstopped: what was measured is kept, the same command with --missing goes on")
        status = 130  # as a shell has it for SIGINT
    if kept.variants:
        print(f"\nkept in {kept.file}\n\n{table(kept.result)}")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
