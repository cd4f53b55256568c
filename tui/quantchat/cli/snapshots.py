"""`quantchat snapshots`: list, show or remove saved snapshots."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from quantchat import paths
from quantchat.console.console import console
from quantchat.errors import UserError
from quantchat.report import listing, tables
from quantchat.snapshot import recovered, store
from quantchat.snapshot.lookup import LATEST, found
from quantchat.text import one_line

_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the list as JSON, and nothing else."
)


@click.group(invoke_without_command=True)
@click.option(
    "--snapshots",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Look in this folder.",
)
@_json_option
@click.pass_context
def snapshots(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """List or show saved snapshots, decide on recovered ones. Without a command, list them."""
    # `quantchat --snapshots DIR snapshots` has left the folder with the context.
    ctx.obj = folder or ctx.obj or paths.snapshots_dir()
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, as_json=as_json)
    elif as_json:
        raise click.UsageError("--json is of the list: `quantchat snapshots list --json`")


@snapshots.command("list")
@_json_option
@click.pass_obj
def list_(folder: Path, as_json: bool) -> None:
    """List the snapshots, the newest first, with what each is the result of."""
    listed = store.recent(folder)
    if as_json:
        click.echo(json.dumps(listing.document(folder, listed)))
    elif listed:
        console().print(listing.render(listed), crop=False)
        if any(recovered.is_recovered(line.path) for line in listed):
            click.echo("recovered: `quantchat snapshots keep NAME`, or `… discard NAME`")
    else:
        click.echo(f"no snapshots in {one_line(str(folder))} yet; Ctrl+S in a comparison saves one")


@snapshots.command()
@click.argument("name")
@click.pass_obj
def show(folder: Path, name: str) -> None:
    """Print the snapshot NAME, of the list or a file, as tables. Its beginning will do."""
    console().print(tables.render(store.load(found(folder, name))))


@snapshots.command()
@click.argument("name")
@click.pass_obj
def keep(folder: Path, name: str) -> None:
    """Make the recovered conversation NAME a snapshot like any other."""
    click.echo(one_line(f"kept as {recovered.keep(found(folder, name))}"))


@snapshots.command()
@click.argument("name")
@click.pass_obj
def discard(folder: Path, name: str) -> None:
    """Remove the recovered conversation NAME. Its beginning will do; no saved one is removed."""
    path = found(folder, name)
    recovered.discard(path)
    click.echo(one_line(f"discarded {path}"))


@snapshots.command()
@click.pass_obj
def latest(folder: Path) -> None:
    """Print the path of the newest snapshot. Its NAME is "latest" wherever one is asked for."""
    click.echo(one_line(str(found(folder, LATEST))))


@snapshots.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.pass_obj
def remove(folder: Path, names: tuple[str, ...], yes: bool) -> None:
    """Remove the snapshots NAME, saved or recovered. Their beginnings will do."""
    # Each name is looked up before anything is removed: a typo removes nothing.
    paths_of = list(dict.fromkeys(found(folder, name) for name in names))
    for path in paths_of:
        if not path.is_file():
            raise UserError("no such snapshot", where=one_line(str(path)))
    for path in paths_of:
        click.echo(one_line(str(path)), err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(
                "nobody can be asked whether to remove them", hint="--yes removes without asking"
            )
        click.confirm(f"Remove {len(paths_of)}?", abort=True, err=True)
    for path in paths_of:
        try:
            path.unlink()
        except OSError as error:
            raise UserError(
                f"cannot be removed: {error.strerror or error}", where=one_line(str(path))
            ) from None
