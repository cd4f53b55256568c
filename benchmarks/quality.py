"""Measure how far each quantization of the demo's model diverges from its bf16 base model.

`python benchmarks/quality.py` scores the variants of `benchmarks/quality.toml` (GPTQ in 8, 4, 3 and
2 bits; NF4 with and without double quantization, FP4, int8) on the text that ships with quantchat;
it builds missing checkpoints first. It writes `benchmarks/results/quality.json`, from which
`python benchmarks/quality.py --table` prints the table of `docs/explanation/scoring.md`. No figure
is a time, so the load of the machine does not matter.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from quantchat.cli import main as quantchat
from quantchat.document.figures import size, with_error
from quantchat.features.score.tables import divergence_texts, named, perplexity_text
from quantchat.snapshot.score import ScoredRecord, ScoreRecord

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "quality.json"


def measure() -> dict[str, Any]:
    """Run `quantchat score`; return the part of its snapshot that this benchmark saves."""
    return kept("score --window 512", saved_by("score", "--window", "512"))


def saved_by(command: str, *options: str, profile: str = "quality.toml") -> dict[str, Any]:
    """Run quantchat's `command` on `profile`; return its snapshot.

    Raises SystemExit if the command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        if quantchat([command, str(HERE / profile), *options, "--save", folder]):
            raise SystemExit("not every variant could be measured")
        (saved,) = Path(folder).iterdir()
        snapshot: dict[str, Any] = json.loads(saved.read_bytes())
        return snapshot


def kept(
    command: str, snapshot: dict[str, Any], part: str = "score", *, profile: str = "quality.toml"
) -> dict[str, Any]:
    """Return `part` of the snapshot of `command`, with date and machine but no local paths."""
    environment, measured = snapshot["environment"], snapshot[part]
    for model in measured["models"]:
        model["model_info"]["model"] = Path(model["model_info"]["model"]).name
    host = environment["device"]["host"]
    return {
        "date": snapshot["created"],
        "command": f"quantchat {command} benchmarks/{profile}",
        "machine": f"{host['cpu']}, {host['cores']} cores",
        "python": environment["python"],
        "libraries": environment["libraries"],
        part: measured,
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown, sorted by KLD: models closest to the reference first."""
    found = ScoreRecord.model_validate(result["score"])
    heads = (
        "model", "weights", "perplexity", "ΔPPL", "KLD, nats", "KLD, 99th percentile", "RMS Δp, %",
        "top-1 agreement, %",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " --: |" * (len(heads) - 1)]
    lines += [f"| {' | '.join(_row(model))} |" for model in sorted(found.models, key=_distance)]
    setting = found.setting
    return "\n".join(
        [
            *lines,
            "",
            f"{setting.tokens} tokens of quantchat's own text, {setting.positions} of them scored "
            f"in windows of {setting.window}; ± is one standard error.",
        ]
    )


def _distance(model: ScoredRecord) -> float:
    return model.divergence.kld_mean.value if model.divergence else -1.0


def _row(model: ScoredRecord) -> list[str]:
    role = named(model).aside
    name = f"{model.label} ({role})" if role else model.label
    difference, kld, rms, top = divergence_texts(model.divergence)
    seen = model.divergence
    tail = next((p.figure for p in seen.kld_percentiles if p.percent == 99), None) if seen else None
    return [
        name, size(model.weights), perplexity_text(model), difference, kld,
        with_error(tail) if tail else "–", rms, top,
    ]  # fmt: skip


def main() -> None:
    """Measure and write the result, or print the table of the saved result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="print the saved result")
    given = parser.parse_args()
    if not given.table:
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    print(table(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
