"""`quantchat snapshots`: list the saved snapshots, show one as tables."""

from __future__ import annotations

import os
from pathlib import Path

import click

from quantchat import paths
from quantchat.cli.console import console
from quantchat.errors import UserError
from quantchat.report import tables
from quantchat.report.listing import list_table
from quantchat.snapshot import recovered, store
from quantchat.text import one_line


@click.group(invoke_without_command=True)
@click.option(
    "--snapshots",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Look in this folder.",
)
@click.pass_context
def snapshots(ctx: click.Context, folder: Path | None) -> None:
    """List or show saved snapshots, decide on recovered ones. Without a command, list them."""
    # `quantchat --snapshots DIR snapshots` has left the folder with the context.
    ctx.obj = folder or ctx.obj or paths.snapshots_dir()
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@snapshots.command("list")
@click.pass_obj
def list_(folder: Path) -> None:
    """List the snapshots, the newest first."""
    listed = store.recent(folder)
    if listed:
        console().print(list_table(listed))
        if any(recovered.is_recovered(line.path) for line in listed):
            click.echo("recovered: `quantchat snapshots keep NAME`, or `… discard NAME`")
    else:
        click.echo(f"no snapshots in {one_line(str(folder))} yet; Ctrl+S in a comparison saves one")


@snapshots.command()
@click.argument("name")
@click.pass_obj
def show(folder: Path, name: str) -> None:
    """Print the snapshot NAME (of the list), or the file NAME, as tables."""
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
    """Remove the recovered conversation NAME."""
    path = found(folder, name)
    recovered.discard(path)
    click.echo(one_line(f"discarded {path}"))


def found(folder: Path, name: str) -> Path:
    """The file that `name` means: a path, or a file of the folder with or without its ending.

    Raises UserError where there is none.
    """
    if os.sep in name:
        return Path(name)
    for path in (Path(name), folder / name, folder / f"{name}.json"):
        # `lexists` takes any name: one with a NUL or too long is just not there.
        if os.path.lexists(path):
            return path
    raise UserError(
        "no such snapshot",
        where=name,
        mend="`quantchat snapshots` lists those in the folder; else give a file",
    )
