"""Show which answers each quantization of the demo's model changes.

`python benchmarks/tasks.py` gives the variants of `benchmarks/quality.toml` the questions that ship
with quantchat (`quantchat eval`), and writes `benchmarks/results/tasks.json`, from which
`python benchmarks/tasks.py --table` prints the table of `docs/how-to/tasks.md`. No figure is a
time, so the load of the machine does not matter.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from quality import HERE, kept, saved_by
from quantchat.features.tasks.tables import FLIPS, figure_texts
from quantchat.snapshot.evaluation import EvaluationRecord, flips

RESULTS = HERE / "results" / "tasks.json"
METRIC = "acc"


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown, in the order of the profile."""
    found = EvaluationRecord.model_validate(result["evaluation"])
    heads = ("model", "right, %", *FLIPS)
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " --: |" * (len(heads) - 1)]
    for model in found.models:
        name = f"{model.label} ({model.role})" if model.role == "reference" else model.label
        (task,) = model.tasks
        figure = next(one for one in task.figures if one.metric == METRIC)
        shown = figure_texts(figure, flips(task, figure, found.reference))
        lines.append(f"| {name} | {' | '.join(shown)} |")
    questions = found.models[0].tasks[0].questions
    return "\n".join(
        [
            *lines,
            "",
            f"{questions} questions of four choices; ± is one standard error, Δ is paired.",
        ]
    )


def main() -> None:
    """Measure and write the result, or print the table of the saved result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="print the saved result")
    if not parser.parse_args().table:
        result = kept("eval", saved_by("eval"), "evaluation")
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
