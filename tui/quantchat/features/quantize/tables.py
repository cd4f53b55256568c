"""The result of `quantchat quantize` as a short table with notes."""

from __future__ import annotations

import json

from quantchat.checkpoints.calibration_coverage import shortage, tokens_per_input
from quantchat.document.document import Block, Cell, Column, Table, paragraphs, table
from quantchat.document.figures import UNKNOWN, number, seconds, size, with_error
from quantchat.features.quantize.outcome import ModelFigures, Outcome
from quantchat.wire.jobs import CalibrationUsed

WORST = 5
"""How many modules with the largest loss are named."""


def blocks(outcome: Outcome) -> list[Block]:
    """Return the model before and after, the modules with the largest loss, and notes."""
    parts: list[Block] = [_sides(outcome)]
    worst = sorted(
        ((row.loss, row) for row in outcome.losses if row.loss is not None),
        key=lambda pair: -pair[0],
    )[:WORST]
    if worst:
        rows = [(f"layers.{row.layer}.{row.module}", f"{loss:.3g}") for loss, row in worst]
        parts.append(table("", ("worst modules", "loss"), rows))
    return [*parts, *paragraphs(_notes(outcome))]


def _sides(outcome: Outcome) -> Table:
    sides = (outcome.before, outcome.after)
    rows: list[tuple[str | Cell, ...]] = [
        ("size", *(size(side.bytes) for side in sides)),
        ("bits per weight", *(number(outcome.bits_per_weight(side)) for side in sides)),
        ("perplexity, held-out text", *map(_perplexity, sides)),
    ]
    if outcome.perplexity_more:
        difference = with_error(outcome.perplexity_more, signed=True)
        rows.append((Cell("ΔPPL", indent=2), "", difference))
    rows.append(("time to quantize", "", seconds(outcome.seconds)))
    return table("", (Column(), "before", "after"), rows)


def _perplexity(side: ModelFigures) -> str:
    return with_error(side.perplexity, least=2) if side.perplexity else UNKNOWN


def _notes(outcome: Outcome) -> list[str]:
    notes = []
    if used := outcome.calibration:
        notes.append(
            f"calibrated on {used.samples} samples, {used.tokens} tokens"
            f" (calibration.jsonl, SHA-256 {used.sha256[:12]}…)"
        )
        if template := used.chat_template_kwargs:
            notes.append(f"with chat_template_kwargs {json.dumps(template)}")
        notes += _coverage(used)
    if outcome.resumed:
        notes.append(
            f"{outcome.resumed} of the layers were quantized by an earlier run that was stopped:"
            " the time is that of the other layers"
        )
    rounded = sum(row.loss is None for row in outcome.losses)
    if rounded:
        notes.append(
            f"{rounded} modules were only rounded, because too few calibration tokens reached them"
        )
    if found := outcome.after.perplexity or outcome.before.perplexity:
        notes.append(
            f"perplexity over {found.positions} tokens of calibration text that was held out,"
            " ± one standard error"
            + (", that of ΔPPL paired by token" if outcome.perplexity_more else "")
        )
    for name, side in (("before", outcome.before), ("after", outcome.after)):
        if side.why:
            notes.append(f"no perplexity {name}: {side.why}")
    return [*notes, *([outcome.note] if outcome.note else [])]


def _coverage(calibration: CalibrationUsed) -> list[str]:
    """Return how many calibration tokens there were for each input of the widest module, if known.

    Empty if they were too few, because then the note of the checkpoint says so.
    """
    found = tokens_per_input(calibration)
    if found is None or shortage(calibration):
        return []
    inputs = f"the {calibration.widest} inputs of the widest module"
    return [f"{number(found)} tokens for each of {inputs}"]
