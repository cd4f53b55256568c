"""Decode steps on a CPU: the model's own modules, direct kernel calls, fused steps, a compiled one.

`python benchmarks/cpu_steps.py` loads each variant of the demo once for each kind of step into one
process and lets them take turns: a prompt of 256 tokens, then single tokens. Ratios are to the
model's modules in the same round. Times are processor time of one thread, which other programs on
the machine change little. After each variant it writes the entry `cpu_steps` of
`benchmarks/results/decode.json`, from which `python benchmarks/cpu_steps.py --table` prints the
table in docs/explanation/cpu-decoding.md. `--compile` adds the compiled step, which takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import as_worker  # noqa: F401
import torch
from driving import circumstances, demo_loads

from quantchat.common.versions import versions
from quantchat.wire.messages import LoadModel
from quantchat.worker.decode.cpu import kernels
from quantchat.worker.decode.cpu.llama_step import llama_step
from quantchat.worker.decode.cpu.llama_step_in_c import llama_step_in_c
from quantchat.worker.decode.steps import Step
from quantchat.worker.decode.steps.compiled import CompiledStep, missing_compiler
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.loaders import load

RESULTS = Path(__file__).parent / "results" / "decode.json"
LIBRARIES = ("torch", "transformers", "gptqmodel", "bitsandbytes")
PROMPT_TOKENS = 256
MODULES = "modules"
PACKED = "fused, 4 bits packed"
"""The fused step without unpacking 4-bit weights for a prompt."""


def _direct(model: Any) -> Step:
    kernels.call_directly(model)
    return EagerStep(model, "direct")


def _fused(model: Any) -> Step:
    return _found(llama_step(model), model)


def _fused_in_c(model: Any) -> Step:
    return _found(llama_step_in_c(model), model)


def _found(step: Step | None, model: Any) -> Step:
    if step is None:
        raise SystemExit(f"{type(model).__name__} has no fused step")
    return step


STEPS: dict[str, Callable[[Any], Step]] = {
    MODULES: EagerStep,
    "direct": _direct,
    "fused": _fused,
    "fused, in C": _fused_in_c,
    PACKED: _fused,
    "compiled": CompiledStep,
}


@contextmanager
def _unpacking(name: str) -> Iterator[None]:
    before = kernels._UNPACK_ROWS
    kernels._UNPACK_ROWS = PROMPT_TOKENS + 1 if name == PACKED else before
    try:
        yield
    finally:
        kernels._UNPACK_ROWS = before


def variant(command: LoadModel, names: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one variant, by kind of step."""
    ids = torch.arange(1, PROMPT_TOKENS + 1)[None]
    steps: dict[str, Step] = {}
    kernel, built_s = "", {}
    for name in names:
        loaded = load(replace(command, threads=1), lambda stage: None)
        kernel = loaded.kernel
        EagerStep(loaded.model).run(ids[:, :8])  # kernels repack their weights in this pass
        began = time.thread_time()
        steps[name] = STEPS[name](loaded.model)
        _once(steps[name], name, ids, 4)  # compiles, and warms up
        built_s[name] = round(time.thread_time() - began, 2)
    found: dict[str, Any] = {
        name: {"tok_s": [], "prefill_ms": [], "built_s": built_s[name]} for name in names
    }
    for number in range(given.rounds):
        for name in names if number % 2 else reversed(names):
            prefill_s, rate = _once(steps[name], name, ids, given.tokens)
            found[name]["prefill_ms"].append(round(1e3 * prefill_s, 1))
            found[name]["tok_s"].append(round(rate, 2))
    return {"kernel": kernel, "steps": found}


def _once(step: Step, name: str, ids: Any, tokens: int) -> tuple[float, float]:
    """Return the prefill time in s, and the tokens per second after it (of the median token)."""
    with _unpacking(name):
        began = time.thread_time()
        token = step.run(ids).argmax(dim=-1, keepdim=True)
        prefill_s = time.thread_time() - began
        taken = []
        for _ in range(tokens):
            began = time.thread_time()
            token = step.run(token).argmax(dim=-1, keepdim=True)
            taken.append(time.thread_time() - began)
    step.forget()
    return prefill_s, 1 / statistics.median(taken)


def measure(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the result so far after each variant of the demo."""
    names = [MODULES, "direct", "fused", "fused, in C"]
    command = f"cpu_steps.py --rounds {given.rounds} --tokens {given.tokens}"
    if given.compile and not missing_compiler(torch.device("cpu")):
        names.append("compiled")
        command += " --compile"
    result = circumstances(command)
    result["libraries"] = versions(LIBRARIES)
    result["instructions"] = torch.backends.cpu.get_cpu_capability()
    result["fast_bfloat16"] = kernels.NATIVE_BF16
    result["variants"] = {}
    torch.set_num_threads(1)
    for label, wanted in asyncio.run(demo_loads()).items():
        packed = [PACKED] if wanted.engine == "gptq" and kernels.NATIVE_BF16 else []
        result["variants"][label] = variant(wanted, names + packed, given)
        print(label, "done", flush=True)
        yield result


_EXPLANATION = f"""\
*modules*: the unchanged modules of transformers; *direct*: direct kernel calls; *fused*: fused
Llama steps. tok/s and ms are medians over the rounds. "÷ modules" is the speed divided by the speed
of the unchanged modules in the same round, and then the median of these ratios, so it can differ
from the quotient of two medians in the table. *Building and first run*: the time to build the step
(its copies of weights included, compiling its C code not) and to run it once, with a prompt of
{PROMPT_TOKENS} tokens and four more tokens; loading the model is not included.
"""
"""The text above the table."""


def table(result: dict[str, Any]) -> str:
    """Return the table of docs/explanation/cpu-decoding.md with its explanation, in Markdown."""
    lines = [
        _EXPLANATION,
        f"{result['date'][:10]}, {result['machine']}, {result['instructions']}, "
        + ", ".join(f"{name} {version}" for name, version in result["libraries"].items()),
        "",
        "| variant | step | tok/s | decode speed ÷ modules"
        f" | prefill of {PROMPT_TOKENS} tokens, ms | prefill speed ÷ modules"
        " | building and first run, s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for label, measured in result["variants"].items():
        base = measured["steps"][MODULES]
        for name, figures in measured["steps"].items():
            faster = [a / b for a, b in zip(figures["tok_s"], base["tok_s"], strict=True)]
            sooner = [a / b for a, b in zip(base["prefill_ms"], figures["prefill_ms"], strict=True)]
            lines.append(
                f"| {label} | {name} | {statistics.median(figures['tok_s']):.1f} "
                f"| {statistics.median(faster):.2f} "
                f"| {statistics.median(figures['prefill_ms']):.0f} "
                f"| {statistics.median(sooner):.2f} | {figures['built_s']:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure and save the result, or print the table of the saved result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--compile", action="store_true", help="measure a compiled step too")
    parser.add_argument("--table", action="store_true", help="print the saved result")
    given = parser.parse_args()
    saved = json.loads(RESULTS.read_text(encoding="utf-8"))
    for result in () if given.table else measure(given):
        saved["cpu_steps"] = result
        RESULTS.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    if "cpu_steps" not in saved:
        raise SystemExit(f"{RESULTS.name}: the CPU's steps have not been measured yet")
    print(table(saved["cpu_steps"]))


if __name__ == "__main__":
    main()
