"""`quantchat rerun`: repeat the measurement of a snapshot."""

from __future__ import annotations

from pathlib import Path

import click

from quantchat.console.running import comparison_of, output_options
from quantchat.features.measure.printing import measure_and_print


@click.command()
@click.argument("snapshot")
@click.option(
    "--trust",
    is_flag=True,
    help="Allow what the snapshot names: other interpreters, servers, a model's own code.",
)
@output_options
@click.pass_obj
def rerun(obj: Path | None, snapshot: str, trust: bool, folder: Path | None, as_json: bool) -> int:
    """Repeat the measurement of SNAPSHOT on this machine.

    SNAPSHOT is a name from `quantchat snapshots`, the start of a name, or a file. Uses the same
    variants, prompts, rounds, order and settings. The prompts of a chat are measured one by one,
    each as a new chat. `quantchat compare` then compares the two runs.
    """
    from quantchat import paths
    from quantchat.errors import UserError
    from quantchat.features.measure.rerun import rerun_of
    from quantchat.snapshot import store
    from quantchat.snapshot.lookup import find_snapshot
    from quantchat.text import one_line

    file = find_snapshot(obj or paths.snapshots_dir(), snapshot)
    same = rerun_of(store.load(file), where=str(file))
    if same.needs_trust and not trust:
        raise UserError(
            "; ".join(same.needs_trust),
            where=str(file),
            hint="add --trust if you trust the origin of this snapshot",
        )
    for note in same.notes:
        click.echo(f"note: {one_line(note)}", err=True)
    comparison = comparison_of(same.profile)
    comparison.pair = same.pair
    return measure_and_print(comparison, same.plan, folder or obj, as_json=as_json)
