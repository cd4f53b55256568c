"""Several scores side by side: as a table (Rich), and as one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantchat.report.figures import when
from quantchat.report.score import (
    DIVERGENCES,
    divergence_cells,
    facts,
    named,
    new_table,
    perplexity_cell,
)
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import ScoreRecord
from quantchat.text import one_line


@dataclass(frozen=True)
class Scored:
    """A snapshot's score, and the file it came from."""

    file: str
    snapshot: Snapshot
    score: ScoreRecord


def render(scores: Sequence[Scored], obstacles: Sequence[str]) -> Group:
    """What was read, each model of each run, and why they cannot be compared, if they cannot."""
    parts: list[RenderableType] = [_run(number, one) for number, one in enumerate(scores, 1)]
    if not obstacles:
        parts += [Text(f"all {line}") for line in facts(scores[0].score)[:2]]
    parts.append(_table(scores))
    parts += [Text(f"! not comparable: {one_line(reason)}", style="red") for reason in obstacles]
    return Group(*parts)


def _run(number: int, one: Scored) -> Text:
    return Text.assemble(
        (f"Run {number}", "bold"),
        f" {one_line(one.file)}\n  {one_line(one.snapshot.name)}, saved "
        f"{one_line(when(one.snapshot.created))}",
    )


def _table(scores: Sequence[Scored]) -> Table:
    """The same model of each run beneath each other, in the order in which they first stand."""
    table = new_table("Against the reference", "", "run", "PPL", *DIVERGENCES)
    labels = dict.fromkeys(model.label for one in scores for model in one.score.models)
    for label in labels:
        for number, one in enumerate(scores, 1):
            for model in one.score.models:
                if model.label == label:
                    cells = divergence_cells(model.divergence)
                    table.add_row(named(model), str(number), perplexity_cell(model), *cells)
    return table


def document(scores: Sequence[Scored], obstacles: Sequence[str]) -> dict[str, Any]:
    """All that `render` shows, as plain JSON values; text is raw, as it was recorded."""
    return {
        "comparable": not obstacles,
        "obstacles": list(obstacles),
        "runs": [
            {
                "run": number,
                "file": one.file,
                "name": one.snapshot.name,
                "created": one.snapshot.created,
                "score": one.score.model_dump(),
            }
            for number, one in enumerate(scores, 1)
        ],
    }
