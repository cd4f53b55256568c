"""Measure how fast each variant of the demo decodes in the modes `generate`, `eager`, `compile`.

`python benchmarks/decode.py` loads a variant once for each decode mode, each time in a worker of
its own. The workers answer one after another in each round, so that a slow minute of the machine
affects all modes. Each throughput is divided by that of `generate` in the same round. The program
writes `benchmarks/results/decode.json`, from which `python benchmarks/decode.py --table` prints the
table of docs/explanation/decoding.md.

MBU is (weights + KV cache) × decode throughput ÷ the memory bandwidth of this machine, which is
measured first. MBU can exceed 100 % on a processor whose cache holds much of the weights.

`--llama-bench FILE` names llama.cpp's benchmark program. It then decodes in each round too, with
the GGUF from which the variants were made, and is measured alone after them. Its TTFT is the
prefill time alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_bench
from bandwidth import bandwidth
from driving import Answer, ask, circumstances, demo_gguf, demo_loads, loaded, run

from quantchat.host.worker_process import Worker
from quantchat.wire.messages import Generate, LoadModel, Message, Ready, Sampling

RESULTS = Path(__file__).parent / "results" / "decode.json"
MODES = ("generate", "eager", "compile")
PROMPT_TOKENS = (32, 512, 2048)
QUESTION = [Message("user", "Explain step by step how a bicycle stays upright.")]


async def variant(label: str, command: LoadModel, given: argparse.Namespace) -> dict[str, Any]:
    """Load the variant `label` with `command` in each decode mode; return its figures by mode."""
    workers: dict[str, Worker] = {}
    readies: dict[str, Ready] = {}
    figures: dict[str, Any] = {}
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    try:
        with tempfile.TemporaryDirectory() as empty:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty  # workers inherit it
            for mode in MODES:
                load = replace(command, decode=mode, threads=given.threads)
                if mode == "compile":  # load twice: the second load finds the compiled code cached
                    first, cold = await loaded(label, load)
                    await first.close()
                    figures[mode] = {"warmup_cold_s": round(cold.warmup_s, 2)}
                workers[mode], readies[mode] = await loaded(label, load)
            answers, peer = await rounds(workers, given)
    finally:
        if before is None:
            os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
        else:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before
        for worker in workers.values():
            await worker.close()
    plain = [answer.tok_s or 0.0 for answer in answers["generate"][0]]
    for mode in MODES:
        said = answers[mode][0]
        rates = [answer.tok_s or 0.0 for answer in said]
        ledger = said[-1].ledger or readies[mode].ledger
        read = ledger.weights + ledger.kv_cache
        figures[mode] = {
            "resolved": readies[mode].model_info.decode,
            "kernel": readies[mode].model_info.kernel,
            "warmup_s": round(readies[mode].warmup_s, 2),
            **figures.get(mode, {}),
            "tok_s": [round(rate, 2) for rate in rates],
            "ratio": [round(a / b, 3) for a, b in zip(rates, plain, strict=True)],
            "ratio_to_llama_cpp": [round(a / b, 3) for a, b in zip(rates, peer, strict=False)],
            "bytes_per_token": read,
            "ttft_ms": {
                str(length): [round(answer.ttft_ms, 1) for answer in answers[mode][length]]
                for length in PROMPT_TOKENS
            },
        }
    return figures


async def rounds(
    workers: dict[str, Worker], given: argparse.Namespace
) -> tuple[dict[str, dict[int, list[Answer]]], list[float]]:
    """Let the workers answer in rounds; return the answers by mode and prompt length in tokens.

    Also return llama.cpp's tokens per second in each round, if it is measured too. Length 0 stands
    for the question as it is, answered with `given.tokens` tokens. For the other
    lengths the prompt has that many tokens, and the answer has one.
    """
    found: dict[str, dict[int, list[Answer]]] = {mode: {} for mode in workers}
    peer: list[float] = []
    turn = 0
    for number in range(given.rounds + 1):  # round 0 is the warm-up
        for length in (0, *PROMPT_TOKENS):
            modes = list(workers) if number % 2 else list(reversed(workers))
            for mode in modes:
                turn += 1
                request = Generate(
                    turn,
                    QUESTION,
                    Sampling(),
                    1 if length else given.tokens,
                    threads=given.threads,
                    ignore_eos=True,
                    fresh=True,
                    prompt_tokens=length,
                )
                if number == 0 and length == max(PROMPT_TOKENS):
                    continue  # takes long, and the shorter prompts have warmed up everything
                answer = await ask(workers[mode], request)
                if number:
                    found[mode].setdefault(length, []).append(answer)
        if number and given.llama_bench:
            options = (await demo_gguf(), [0], given.tokens, 1, given.threads)
            peer += llama_bench.measure(given.llama_bench, *options)["tok_s"]
    return found, peer


def table(result: dict[str, Any]) -> str:
    """Return the table of docs/explanation/decoding.md: medians, in Markdown."""
    lengths = " / ".join(str(length) for length in PROMPT_TOKENS)
    lines = [
        "| variant | decode mode | tok/s | ÷ generate | ÷ llama.cpp | MBU"
        f" | TTFT of {lengths} tokens, ms | warm-up, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for label, modes in result["variants"].items():
        for mode, one in ((mode, modes[mode]) for mode in MODES):
            rate = statistics.median(one["tok_s"])
            mbu = one["bytes_per_token"] * rate / result["bandwidth_bytes_s"]
            ttft = " / ".join(f"{statistics.median(v):.0f}" for v in one["ttft_ms"].values())
            warm = f"{one['warmup_s']:.1f}"
            if "warmup_cold_s" in one:
                warm = f"{one['warmup_cold_s']:.1f}, then {warm}"
            ratio = statistics.median(one["ratio"])
            to_peer = one.get("ratio_to_llama_cpp")
            of_peer = f"{statistics.median(to_peer):.2f}" if to_peer else "–"
            lines.append(
                f"| {label} | {mode} | {rate:.1f} | {ratio:.2f} | {of_peer} | {mbu:.0%}"
                f" | {ttft} | {warm} |"
            )
    if "llama.cpp" in result:
        lines.append(_peer(result["llama.cpp"], result["bandwidth_bytes_s"]))
    return "\n".join(lines)


def _peer(one: dict[str, Any], bandwidth_bytes_s: float) -> str:
    rate = statistics.median(one["tok_s"])
    mbu = one["bytes_per_token"] * rate / bandwidth_bytes_s
    ttft = " / ".join(f"{statistics.median(v):.0f}" for v in one["ttft_ms"].values())
    return f"| {one['kernel']} | llama.cpp | {rate:.1f} | – | – | {mbu:.0%} | {ttft} | – |"


async def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Measure the memory bandwidth, all variants and llama.cpp if asked; return the result."""
    options = f"--rounds {given.rounds} --tokens {given.tokens} --threads {given.threads}"
    if given.llama_bench:
        options += " --llama-bench FILE"
    result = circumstances(f"decode.py {options}")
    result["bandwidth_bytes_s"] = round(bandwidth(given.threads).measured)
    result["variants"] = {}
    for label, command in (await demo_loads()).items():
        result["variants"][label] = await variant(label, command, given)
        print(label, "done", flush=True)
    if given.llama_bench:
        result["llama.cpp"] = llama_bench.measure(
            given.llama_bench,
            await demo_gguf(),
            PROMPT_TOKENS,
            given.tokens,
            given.rounds,
            given.threads,
        )
    return result


def main() -> None:
    """Measure and write the result, or print the table of the saved result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-bench", type=Path, metavar="FILE", help="measure llama.cpp too")
    parser.add_argument("--table", action="store_true", help="print the saved result")
    given = parser.parse_args()
    if not given.table:
        result = run(measure(given))
        if cpu_steps := json.loads(RESULTS.read_text(encoding="utf-8")).get("cpu_steps"):
            result["cpu_steps"] = cpu_steps  # written by cpu_steps.py
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
