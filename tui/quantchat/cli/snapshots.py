"""`quantchat snapshots`: list, show or remove saved snapshots."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from quantchat import paths
from quantchat.cli.console import console
from quantchat.errors import UserError
from quantchat.report import listing, tables
from quantchat.snapshot import recovered, store
from quantchat.text import one_line

LATEST = "latest"
"""The NAME of the newest snapshot."""

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
                "nobody can be asked whether to remove them", mend="--yes removes without asking"
            )
        click.confirm(f"Remove {len(paths_of)}?", abort=True, err=True)
    for path in paths_of:
        try:
            path.unlink()
        except OSError as error:
            raise UserError(
                f"cannot be removed: {error.strerror or error}", where=one_line(str(path))
            ) from None


def found(folder: Path, name: str) -> Path:
    """The file that `name` means: a path, or a file of the folder, by its name or its beginning.

    "latest" means the newest snapshot of the folder, unless a file is called so. Raises UserError
    where there is none, and where several begin so.
    """
    path = _named(folder, name)
    if path is not None:
        return path
    known = store.newest(folder) if name else []
    if name == LATEST and known:
        return known[0]
    begun = [path for path in known if path.name.startswith(name)]
    if len(begun) > 1:
        raise UserError(
            f"{len(begun)} snapshots begin so",
            where=name,
            mend=f"give more of it: {begun[0].name}, {begun[1].name}"
            + (", …" if len(begun) > 2 else ""),
        )
    if begun:
        return begun[0]
    raise UserError(
        "no such snapshot",
        where=name,
        mend="`quantchat snapshots` lists those in the folder; else give a file",
    )


def _named(folder: Path, name: str) -> Path | None:
    """The file of just this name, with or without its ending, or the path."""
    if os.sep in name:
        return Path(name)
    for path in (Path(name), folder / name, folder / f"{name}.json"):
        # `lexists` takes any name: one with a NUL or too long is just not there.
        if os.path.lexists(path):
            return path
    return None
