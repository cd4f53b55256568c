"""What a checkpoint made on command came to, as a short table (Rich)."""

from __future__ import annotations

import json

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantchat.checkpoints.calibration_coverage import share, shortage
from quantchat.document.figures import UNKNOWN, number, seconds, size
from quantchat.document.shared_tables import with_error
from quantchat.document.style import plain_table
from quantchat.features.quantize.outcome import Outcome, Side
from quantchat.text import one_line
from quantchat.wire.jobs import CalibrationUsed

WORST = 5
"""Modules that are named, those with the largest loss."""


def render(outcome: Outcome) -> Group:
    """Before and after, the worst modules, and what must be known of it."""
    parts: list[RenderableType] = [_sides(outcome)]
    worst = sorted(
        ((row.loss, row) for row in outcome.losses if row.loss is not None),
        key=lambda pair: -pair[0],
    )[:WORST]
    if worst:
        table = plain_table()
        table.add_column("worst modules")
        table.add_column("loss", justify="right")
        for loss, row in worst:
            name = one_line(f"layers.{row.layer}.{row.module}")
            table.add_row(Text(name), f"{loss:.3g}")
        parts.append(table)
    return Group(*parts, *(Text(line) for line in _notes(outcome)))


def _sides(outcome: Outcome) -> Table:
    table = plain_table()
    table.add_column("")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    sides = (outcome.before, outcome.after)
    table.add_row("size", *(size(side.bytes) for side in sides))
    table.add_row("bits per weight", *(number(outcome.bits_per_weight(side)) for side in sides))
    table.add_row("perplexity, held out", *map(_perplexity, sides))
    if outcome.perplexity_more:
        table.add_row("  after less before", "", with_error(outcome.perplexity_more, signed=True))
    table.add_row("time to quantize", "", seconds(outcome.seconds))
    return table


def _perplexity(side: Side) -> str:
    return with_error(side.perplexity, least=2) if side.perplexity else UNKNOWN


def _notes(outcome: Outcome) -> list[str]:
    notes = []
    if used := outcome.calibration:
        notes.append(
            f"calibrated on {used.samples} samples, {used.tokens} tokens"
            f" (calibration.jsonl, SHA-256 {used.sha256[:12]}…)"
        )
        if template := used.chat_template_kwargs:
            notes.append(one_line(f"with chat_template_kwargs {json.dumps(template)}"))
        notes += _enough(used)
    if outcome.resumed:
        notes.append(
            f"{outcome.resumed} of the layers were kept from a try that was stopped:"
            " the time is that of the rest"
        )
    rounded = sum(row.loss is None for row in outcome.losses)
    if rounded:
        notes.append(f"{rounded} modules were only rounded: too little of the calibration met them")
    if found := outcome.after.perplexity or outcome.before.perplexity:
        notes.append(
            f"perplexity over {found.positions} tokens of calibration text that was held out,"
            " ± one standard error"
            + (
                ", of the difference as both read the same tokens"
                if outcome.perplexity_more
                else ""
            )
        )
    for name, side in (("before", outcome.before), ("after", outcome.after)):
        if side.why:
            notes.append(f"no perplexity {name}: {one_line(side.why)}")
    return [*notes, *([one_line(outcome.note)] if outcome.note else [])]


def _enough(calibration: CalibrationUsed) -> list[str]:
    """How many tokens there were for each input of the widest module, where that is known.

    Where they were too few the checkpoint's own note says so.
    """
    found = share(calibration)
    if found is None or shortage(calibration):
        return []
    inputs = f"the {calibration.widest} inputs of the widest module"
    return [f"{number(found)} tokens for each of {inputs}"]
