"""`quantchat rerun`: do the same again here."""

from __future__ import annotations

from pathlib import Path

import click

from quantchat.console.running import comparison_of, output_options
from quantchat.features.measure.printing import measured


@click.command()
@click.argument("snapshot")
@click.option(
    "--trust",
    is_flag=True,
    help="Run and ask what else the snapshot names: interpreters, servers, a model's own code.",
)
@output_options
@click.pass_obj
def rerun(obj: Path | None, snapshot: str, trust: bool, folder: Path | None, as_json: bool) -> int:
    """Measure again, here, what SNAPSHOT records: a name of the list, its beginning, or a file.

    The same variants, prompts, rounds, order and settings. Of a chat the prompts are measured, each
    alone. `quantchat compare` then tells the two runs apart.
    """
    from quantchat import paths
    from quantchat.errors import UserError
    from quantchat.features.measure.rerun import rerun_of
    from quantchat.snapshot import store
    from quantchat.snapshot.lookup import find_snapshot
    from quantchat.text import one_line

    file = find_snapshot(obj or paths.snapshots_dir(), snapshot)
    same = rerun_of(store.load(file), where=str(file))
    if same.trusted and not trust:
        raise UserError(
            "; ".join(same.trusted), where=str(file), hint="--trust, if you know where it is from"
        )
    for note in same.notes:
        click.echo(f"note: {one_line(note)}", err=True)
    comparison = comparison_of(same.profile)
    comparison.pair = same.pair
    return measured(comparison, same.plan, folder or obj, as_json=as_json)
