"""Measure how much memory GPTQ quantization needs, compared with the size of the model.

`python benchmarks/quantize_memory.py` quantizes Llama models with random weights and different
numbers of equal layers, then the demo's model. Each is quantized in a worker, as by `quantchat
quantize`, with the text that ships with quantchat as calibration set. Meanwhile the benchmark reads
the worker's memory from /proc. It writes `benchmarks/results/quantize_memory.json`; `--table`
prints the saved result as Markdown.

The result is the peak of the worker's own memory (RssAnon in /proc/PID/status), minus what the
imported libraries take. Mapped pages of the checkpoint's file (RssFile) do not count, because the
Linux kernel can free them when needed. All is main memory: no GPU has been measured yet.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.resources
import json
import tempfile
import threading
from pathlib import Path
from typing import Any

from driving import circumstances

from quantchat.checkpoints import headers
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.cache import read_built
from quantchat.engines.gptq import Gptq
from quantchat.engines.quantize import Quantize
from quantchat.engines.transformers import Transformers
from quantchat.engines.variant import DEMO_MODEL
from quantchat.host.worker_process import Place, Worker, start_worker
from quantchat.wire.messages import Progress

RESULTS = Path(__file__).parent / "results" / "quantize_memory.json"
BEFORE = RESULTS.with_name("quantize_memory_kept.json")
"""An older result, of a quantization job that did not yet call `return_freed_memory`."""
MIB = 2**20
EVERY_S = 0.02
"""Time between two readings of a worker's memory."""
SHAPE = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
}


class Watch:
    """Records the largest memory of a worker, in bytes, after it has imported its libraries."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.base = 0
        self.peak = 0
        self.peak_file = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    async def start(self, place: Place) -> Worker:
        """Start a worker, and record its memory if it quantizes. Implements `StartWorker`."""
        worker = await start_worker(place)
        if place.label == "quantize gptq":
            self.pid = worker.pid
        return worker

    def heard(self, progress: Progress) -> None:
        """Record the memory of the libraries if `progress` says that they are imported."""
        if self.pid is not None and progress.detail == "loading the model":
            self.base = _status(self.pid).get("RssAnon", 0)

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            if self.pid is not None and self.base:
                found = _status(self.pid)
                self.peak = max(self.peak, found.get("RssAnon", 0))
                self.peak_file = max(self.peak_file, found.get("RssFile", 0))


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:  # it has ended
        return {}
    pairs = (line.split(":", 1) for line in lines if line.startswith("Rss"))
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def random_llama(folder: Path, base: Path, layers: int) -> None:
    """Save a Llama with random bf16 weights into `folder`, with the tokenizer of `base`."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LlamaConfig(**SHAPE, num_hidden_layers=layers, vocab_size=len(tokenizer))
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


async def measure(model: str, folder: Path, text: Path, given: argparse.Namespace) -> Any:
    """Quantize `model` to 4 bits, and return sizes and peak memory in MiB."""
    watch = Watch()
    quantize = Quantize(
        group_size=64,
        samples=given.samples,
        sample_tokens=given.tokens,
        calibration=str(text),
    )
    spec = Gptq(label="GPTQ", engine="gptq", model=model, quantize=quantize, device="cpu")
    builder = CheckpointBuilder(watch.start, folder, threads=given.threads)
    base = Transformers(label="base", engine="transformers", model=model)
    size = headers.read_folder(Path((await builder.prepare(base, watch.heard)).model)).bytes
    try:
        made = Path((await builder.prepare(spec, watch.heard)).model)
    finally:
        watch.end()
    told = read_built(made)
    assert told
    return {
        "layers": told.result["layers"],
        "bf16_mib": round(size / MIB),
        "checkpoint_mib": round(headers.read_folder(made).bytes / MIB),
        "libraries_mib": round(watch.base / MIB),
        "peak_above_libraries_mib": round((watch.peak - watch.base) / MIB),
        "peak_of_bf16": round((watch.peak - watch.base) / size, 3),
        "mapped_file_peak_mib": round(watch.peak_file / MIB),
        "calibration_tokens": told.result["calibration"]["tokens"],
    }


async def run(given: argparse.Namespace) -> dict[str, Any]:
    text = Path(str(importlib.resources.files("quantchat.corpus") / "own.txt"))
    demo = Transformers(label="base", engine="transformers", model=DEMO_MODEL)
    found = {}
    base = Path((await CheckpointBuilder().prepare(demo, lambda progress: None)).model)
    for layers in given.layers:
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch)
            random_llama(place / "model", base, layers)
            name = f"random Llama, {layers} layers"
            found[name] = await measure(str(place / "model"), place / "cache", text, given)
            print(name, json.dumps(found[name]), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        name = "SmolLM2-135M-Instruct"
        found[name] = await measure(str(base), Path(scratch), text, given)
        print(name, json.dumps(found[name]), flush=True)
    return found


def table(kept: dict[str, Any]) -> str:
    """Return the saved result as Markdown.

    The last column is the older result, when freed memory was not returned to the system.
    """
    before = json.loads(BEFORE.read_text())["models"]
    lines = [
        "| model | layers | bf16, MiB | 4-bit, MiB | peak without libraries, MiB | peak ÷ bf16"
        " | peak ÷ bf16, freed blocks kept |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in kept["models"].items():
        then = f"{before[name]['peak_of_bf16']:.2f}" if name in before else "–"
        lines.append(
            f"| {name} | {one['layers']} | {one['bf16_mib']} | {one['checkpoint_mib']} |"
            f" {one['peak_above_libraries_mib']} | {one['peak_of_bf16']:.2f} | {then} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="*", default=[4, 20])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print the saved result")
    given = parser.parse_args()
    if not given.table:
        layers = " ".join(map(str, given.layers))
        command = (
            f"quantize_memory.py --layers {layers} --samples {given.samples}"
            f" --tokens {given.tokens} --threads {given.threads}"
        )
        body = {**circumstances(command), "models": asyncio.run(run(given))}
        RESULTS.write_text(json.dumps(body, indent=1) + "\n")
    print(table(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
