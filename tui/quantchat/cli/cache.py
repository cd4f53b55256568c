"""`quantchat cache`: the checkpoints that quantchat built."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import datetime, timezone

import click
from filelock import Timeout

from quantchat import paths
from quantchat.checkpoints.cache import CheckpointCache, Entry, State
from quantchat.console.console import show
from quantchat.console.options import json_option, list_by_default
from quantchat.document.document import Cell, Column, Role, Table, cells
from quantchat.document.figures import size
from quantchat.errors import UserError
from quantchat.text import one_line

_DAY_S = 24 * 3600

_NOTES = {
    State.WHOLE: "",
    State.DAMAGED: "damaged: built again when needed",
    State.UNFINISHED: "unfinished: continued when needed",
}


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def cache(ctx: click.Context, as_json: bool) -> None:
    """List, verify or remove the checkpoints that quantchat built. Without a command, list them."""
    ctx.obj = CheckpointCache(paths.cache_dir() / "checkpoints")
    list_by_default(ctx, list_, as_json)


@cache.command("list")
@json_option
@click.pass_obj
def list_(cached: CheckpointCache, as_json: bool = False) -> None:
    """List the checkpoints with size and last use, the most recently used first."""
    entries = cached.entries()
    if as_json:
        click.echo(json.dumps({"folder": str(cached.folder), "entries": [*map(_as_json, entries)]}))
    elif entries:
        show([cache_table(entries)])
    else:
        click.echo(f"no checkpoints in {one_line(str(cached.folder))}")


@cache.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--unused-for",
    metavar="DAYS",
    type=click.FloatRange(min=0),
    help="Remove checkpoints that were not used for this many days.",
)
@click.pass_obj
def remove(cached: CheckpointCache, names: tuple[str, ...], unused_for: float | None) -> None:
    """Remove checkpoints by NAME or by age.

    If a profile needs a removed checkpoint, it is built again.
    """
    entries = {entry.name: entry for entry in cached.entries()}
    for name in names:
        if name not in entries:
            raise UserError("no such checkpoint", where=name, hint="`quantchat cache` lists them")
    if not names and unused_for is None:
        raise UserError("no checkpoint is given", hint="give a NAME or --unused-for DAYS")
    chosen = [entries[name] for name in dict.fromkeys(names)]
    if unused_for is not None:
        oldest_s = time.time() - unused_for * _DAY_S
        pool = chosen if names else [*entries.values()]
        chosen = [entry for entry in pool if entry.used_s <= oldest_s]
    for entry in chosen:
        try:
            cached.remove(entry.name)
        except Timeout:
            raise UserError(
                "another quantchat process is making this checkpoint",
                where=entry.name,
                hint="try again when it has finished",
            ) from None
        except OSError as error:
            raise UserError(f"cannot be removed: {error.strerror}", where=entry.name) from None
        click.echo(f"removed {one_line(entry.name)}")
    if not chosen:
        click.echo("nothing to remove")


@cache.command("verify")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@json_option
@click.pass_obj
def verify_(cached: CheckpointCache, names: tuple[str, ...], as_json: bool) -> int:
    """Check the files of checkpoints (all by default) against their hashes.

    The exit status is 1 if a file is missing or differs.
    """
    from quantchat.checkpoints import verify
    from quantchat.checkpoints.cache import read_built

    known = {entry.name for entry in cached.entries()}
    found: dict[str, str | None] = {}
    for name in names or sorted(known):
        folder = cached.find(name) if name in known else None
        built = read_built(folder) if folder else None
        if folder is None or built is None:
            problem: str | None = "a file is missing, or the checkpoint was never finished"
        else:
            damaged = asyncio.run(verify.first_damaged(folder, built))
            problem = f"{damaged} differs" if damaged else None
        found[name] = problem
        if not as_json:
            cure = f"`quantchat cache remove {name}` removes it; it is built again when needed"
            state = f"DAMAGED: {problem} ({cure})" if problem else "unchanged"
            click.echo(one_line(f"{name}: {state}"))
    if as_json:
        click.echo(json.dumps([{"name": name, "damage": what} for name, what in found.items()]))
    return 1 if any(found.values()) else 0


def cache_table(entries: Sequence[Entry]) -> Table:
    """Return a table of the checkpoints, with their total size in the last line.

    If a checkpoint is damaged or unfinished, a line below its name says so. The other columns are
    narrow, so that a name fits on one line: users copy names to remove checkpoints.
    """
    columns = (
        Column("checkpoint", footer="together"),
        Column("size", right=True, wrap=False, footer=size(sum(entry.bytes for entry in entries))),
        Column("last used", wrap=False),
    )
    rows = []
    for entry in entries:
        used = datetime.fromtimestamp(entry.used_s)
        rows.append(cells((entry.name, size(entry.bytes), f"{used:%Y-%m-%d %H:%M}")))
        if note := _NOTES[entry.state]:
            role: Role = "bad" if entry.state is State.DAMAGED else "quiet"
            rows.append(cells((Cell(note, role=role, indent=2), "", "")))
    return Table("", columns, tuple(rows), compact=True)


def _as_json(entry: Entry) -> dict[str, object]:
    used = datetime.fromtimestamp(entry.used_s, timezone.utc).isoformat(timespec="seconds")
    return {"name": entry.name, "bytes": entry.bytes, "used": used, "state": entry.state.value}
