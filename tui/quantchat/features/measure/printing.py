"""Measure two variants, save the snapshot and print its tables, for `run` and `rerun`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantchat.console.running import FAILED, notice, publish

if TYPE_CHECKING:
    from quantchat.console.gates import GateOptions
    from quantchat.measuring.rounds import Plan
    from quantchat.session.comparison import Comparison
    from quantchat.session.live_variant import LiveVariant
    from quantchat.snapshot.schema import Snapshot

MOST_PROMPTS = 20
"""Largest number of prompts printed with their own means. A report has all of them."""


def measure_and_print(
    comparison: Comparison,
    plan: Plan,
    folder: Path | None,
    *,
    as_json: bool,
    gates: GateOptions | None = None,
) -> int:
    """Measure `plan` on `comparison`; return the exit status, 1 if anything failed.

    If nothing failed, the status is that of `gates`. Saves the snapshot in `folder` (None: the
    user's default folder); prints tables or JSON.
    """
    from quantchat.console.progress import progress_display
    from quantchat.host import signals
    from quantchat.measuring.measure import measure
    from quantchat.snapshot import store
    from quantchat.text import one_line

    store.make_ready(folder)
    for side in comparison.sides:
        for unsafe_option in side.spec.unsafe_options:
            caution = f"CAUTION: {side.label} {unsafe_option}, which could do anything you can"
            click.echo(one_line(caution), err=True)
    announced: set[str] = set()

    def on_variant(variant: LiveVariant) -> None:
        display.on_variant(variant)
        if variant.ready is None or variant.label in announced:
            return
        announced.add(variant.label)
        ran = variant.ready.model_info
        if ran.format_deviation:
            click.echo(one_line(f"{variant.label}: {ran.format_deviation}"), err=True)
        if ran.slow_kernel:
            click.echo(one_line(f"SLOW KERNEL of {variant.label}: {ran.slow_kernel}"), err=True)

    with signals.handled(notice):
        with progress_display() as display:
            snapshot = asyncio.run(
                measure(comparison, plan, on_variant=on_variant, on_step=display.on_step)
            )
        publish(snapshot, folder, None if as_json else _print_tables)
    failed = any(answer.failure for turn in snapshot.turns for answer in turn.answers)
    judged = gates.judge_and_print("run", snapshot, as_json=as_json) if gates else 0
    return FAILED if failed else judged


def _print_tables(snapshot: Snapshot) -> None:
    from quantchat.console.console import show
    from quantchat.document import snapshot_tables
    from quantchat.features.measure.tables import blocks, prompts_table

    show(
        [
            *snapshot_tables.header(snapshot),
            snapshot_tables.variants_table(snapshot),
            *blocks(snapshot),
            *prompts_table(snapshot, MOST_PROMPTS),
        ]
    )
