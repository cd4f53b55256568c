"""`quantchat cache`: list, verify and remove the checkpoints in the cache."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime, timezone

import click
from filelock import Timeout

from quantchat import paths
from quantchat.checkpoints.cache import CheckpointCache, Entry
from quantchat.console.console import console
from quantchat.errors import UserError
from quantchat.report.cache import cache_table
from quantchat.text import one_line

_DAY_S = 24 * 3600


@click.group(invoke_without_command=True)
@click.pass_context
def cache(ctx: click.Context) -> None:
    """List, verify or remove the checkpoints made here. Without a command, list them."""
    ctx.obj = CheckpointCache(paths.cache_dir() / "checkpoints")
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@cache.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
@click.pass_obj
def list_(found: CheckpointCache, as_json: bool = False) -> None:
    """List the checkpoints with size and last use, the last used first."""
    entries = found.entries()
    if as_json:
        click.echo(json.dumps({"folder": str(found.folder), "entries": [*map(_body, entries)]}))
    elif entries:
        console().print(cache_table(entries))
    else:
        click.echo(f"no checkpoints in {one_line(str(found.folder))}")


@cache.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--unused-for",
    metavar="DAYS",
    type=click.FloatRange(min=0),
    help="Remove checkpoints that were not used for this many days.",
)
@click.pass_obj
def remove(found: CheckpointCache, names: tuple[str, ...], unused_for: float | None) -> None:
    """Remove checkpoints by NAME or by age. They are made again when they are needed."""
    entries = {entry.name: entry for entry in found.entries()}
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
            found.remove(entry.name)
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
@click.pass_obj
def verify_(found: CheckpointCache, names: tuple[str, ...]) -> int:
    """Compare the files of checkpoints (default: all) with the hashes recorded when made.

    The exit status is 1 if a checkpoint is damaged.
    """
    from quantchat.checkpoints import verify
    from quantchat.checkpoints.cache import read_built

    known = {entry.name for entry in found.entries()}
    status = 0
    for name in names or sorted(known):
        folder = found.find(name) if name in known else None
        made = read_built(folder) if folder else None
        if folder is None or made is None:
            problem: str | None = "a file is missing, or the checkpoint was never finished"
        else:
            damaged = asyncio.run(verify.first_damaged(folder, made))
            problem = f"{damaged} differs" if damaged else None
        fix = f"remove it with `quantchat cache remove {name}`; it is made again when needed"
        verdict = f"DAMAGED: {problem} ({fix})" if problem else "unchanged"
        click.echo(one_line(f"{name}: {verdict}"))
        status = 1 if problem else status
    return status


def _body(entry: Entry) -> dict[str, object]:
    used = datetime.fromtimestamp(entry.used_s, timezone.utc).isoformat(timespec="seconds")
    return {"name": entry.name, "bytes": entry.bytes, "used": used, "state": entry.state.value}
