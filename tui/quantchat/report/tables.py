"""One snapshot as tables (Rich).

Everything that comes from a model, a profile or a file is neutralised and put in as `Text`, which
Rich never parses as markup.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from quantchat.document.snapshot_tables import header, memory_table, variants_table
from quantchat.features.measure import tables as measure_tables
from quantchat.features.measure.prompt_table import per_prompt
from quantchat.features.score import tables as score_tables
from quantchat.features.tasks import tables as tasks_tables
from quantchat.features.votes import tables as votes_tables
from quantchat.report import turns
from quantchat.snapshot.schema import Snapshot


def render(snapshot: Snapshot) -> Group:
    """All of it: where, the results, what ran, its memory, each turn with figures and answers."""
    parts: list[RenderableType] = [header(snapshot), *_results(snapshot), variants_table(snapshot)]
    if any(variant.ledger for variant in snapshot.variants):
        parts.append(memory_table(snapshot))
    for turn in snapshot.turns:
        parts += [Text(), turns.turn_table(turn, snapshot.voting), turns.answers(turn)]
    return Group(*parts)


def _results(snapshot: Snapshot) -> Iterator[RenderableType]:
    """What a measurement, votes, a score or tasks came to; nothing of a chat."""
    if snapshot.measurement is not None:
        yield from (Text(), measure_tables.render(snapshot))
        if prompts := per_prompt(snapshot):
            yield prompts
    if snapshot.voting is not None:
        yield votes_tables.render(snapshot)
    if snapshot.score is not None:
        yield score_tables.render(snapshot.score)
    if snapshot.evaluation is not None:
        yield tasks_tables.render(snapshot.evaluation)
