"""Measure each quantization method on the demo's model: size, divergence from bf16, and speed.

`python benchmarks/methods.py` scores the variants of `benchmarks/methods.toml` on the text that
ships with quantchat. Then it measures the speed of each variant and of bf16 in one run, one at a
time. It builds missing checkpoints first (AWQ and AutoRound take a CPU ten minutes or more). It
writes `benchmarks/results/methods.json`, from which `--table` prints the table of
`docs/reference/methods.md`.

Only the first 3,072 tokens of the text are scored. A later line is split into different tokens by
llama.cpp and by the tokenizer that transformers makes from the demo's GGUF file, because
transformers ignores the field `tokenizer.ggml.pre`.

On a busy machine all speeds fall, but the ratios to bf16 stay about the same, because both sides of
a ratio were measured in the same minutes. `load_before` in the result is the machine's load.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from quality import kept, saved_by
from quantchat.document.figures import size
from quantchat.features.score.tables import divergence_texts, named
from quantchat.snapshot.ratios import compare_sides
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import ScoredRecord, ScoreRecord

HERE = Path(__file__).parent
PROFILE = "methods.toml"
REFERENCE = "bf16"
RESULTS = HERE / "results" / "methods.json"


def speed(label: str, rounds: int) -> dict[str, Any]:
    """Return the decode throughput of a variant, and its ratio to bf16 in the same run."""
    options = ("--variants", f"{REFERENCE},{label}", "--rounds", str(rounds))
    snapshot = Snapshot.model_validate(saved_by("run", *options, profile=PROFILE))
    found = next(one for one in compare_sides(snapshot) if one.name == "decode_tps")
    return {
        "bf16_tok_s": round(found.a, 2),
        "tok_s": round(found.b, 2),
        "ratio": round(found.ratio.value, 3),
        "low": found.ratio.low and round(found.ratio.low, 3),
        "high": found.ratio.high and round(found.ratio.high, 3),
        "rounds": rounds,
        "load_before": os.getloadavg()[0],
    }


def saved() -> dict[str, Any]:
    """Return the saved result."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def save(result: dict[str, Any]) -> None:
    """Write `result`; called after each step, because the whole benchmark takes long."""
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown, sorted by KLD: methods closest to the reference first."""
    found = ScoreRecord.model_validate(result["score"])
    heads = (
        "method", "weights", "bits per weight", "KLD, nats", "top-1 agreement, %", "tok/s",
        "tok/s ÷ bf16 [95 % interval]",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " --: |" * (len(heads) - 1)]
    models = sorted(found.models, key=_distance)
    lines += [f"| {' | '.join(_row(model, result['speed']))} |" for model in models]
    setting = found.setting
    return "\n".join(
        [
            *lines,
            "",
            f"{result['date'][:10]}, {result['machine']}; {setting.positions} scored tokens of "
            "quantchat's own text; ± is one standard error. Each speed was measured in turn with "
            "bf16 in one run.",
        ]
    )


def _distance(model: ScoredRecord) -> float:
    return model.divergence.kld_mean.value if model.divergence else -1.0


def _row(model: ScoredRecord, speed: dict[str, dict[str, Any]]) -> list[str]:
    role = named(model).aside
    _, kld, _, top = divergence_texts(model.divergence)
    bits = model.model_info.bits_per_weight if model.model_info else 0
    timed = speed.get(model.label)
    ratio = tok_s = "–"
    if timed:
        between = f" [{timed['low']:.2f}, {timed['high']:.2f}]" if timed["low"] else ""
        tok_s, ratio = f"{timed['tok_s']:.1f}", f"{timed['ratio']:.2f}{between}"
    name = f"{model.label} ({role})" if role else model.label
    return [name, size(model.weights), f"{bits:.2f}", kld, top, tok_s, ratio]


def main() -> None:
    """Measure and write the result, or print the table of the saved result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=3072, help="tokens of the scored text")
    parser.add_argument("--table", action="store_true", help="print the saved result")
    parser.add_argument("--speed", action="store_true", help="measure only speeds not yet saved")
    given = parser.parse_args()
    if not (given.table or given.speed):
        options = ("--tokens", str(given.tokens), "--window", "512")
        result = kept("score", saved_by("score", *options, profile=PROFILE), profile=PROFILE)
        save(
            {**result, "command": f"python benchmarks/methods.py {' '.join(options)}", "speed": {}}
        )
    if not given.table:
        result = saved()
        for model in result["score"]["models"]:
            label = model["label"]
            if model["role"] == "variant" and label not in result["speed"]:
                result["speed"][label] = speed(label, given.rounds)
                save(result)
    print(table(saved()))


if __name__ == "__main__":
    main()
