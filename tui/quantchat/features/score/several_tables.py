"""Several scores side by side, as a table (Rich)."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantchat.document.several import Result, heading, not_comparable
from quantchat.document.shared_tables import new_table
from quantchat.features.score.tables import (
    DIVERGENCES,
    divergence_cells,
    facts,
    named,
    perplexity_cell,
)
from quantchat.snapshot.score import ScoreRecord

Scored = Result[ScoreRecord]


def render(scores: Sequence[Scored], obstacles: Sequence[str]) -> Group:
    """What was read, each model of each run, and why they cannot be compared, if they cannot."""
    parts: list[RenderableType] = [
        heading(position, one.file, one.snapshot) for position, one in enumerate(scores, 1)
    ]
    if not obstacles:
        parts += [Text(f"all {line}") for line in facts(scores[0].found)[:2]]
    return Group(*parts, _table(scores), *not_comparable(obstacles))


def _table(scores: Sequence[Scored]) -> Table:
    """The same model of each run beneath each other, in the order in which they first stand."""
    table = new_table("Against the reference", "", "run", "PPL", *DIVERGENCES)
    labels = dict.fromkeys(model.label for one in scores for model in one.found.models)
    for label in labels:
        for number, one in enumerate(scores, 1):
            for model in one.found.models:
                if model.label == label:
                    cells = divergence_cells(model.divergence)
                    table.add_row(named(model), str(number), perplexity_cell(model), *cells)
    return table
