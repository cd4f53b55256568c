"""`quantchat snapshots`: list the saved snapshots, show one as tables."""

from __future__ import annotations

import os
from pathlib import Path

import click

from quantchat import paths
from quantchat.cli.console import console
from quantchat.errors import UserError
from quantchat.report import tables
from quantchat.snapshot import store
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
    """List or show saved snapshots. Without a command, list them."""
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
        console().print(tables.list_table(listed))
    else:
        click.echo(f"no snapshots in {one_line(str(folder))} yet; Ctrl+S in a comparison saves one")


@snapshots.command()
@click.argument("name")
@click.pass_obj
def show(folder: Path, name: str) -> None:
    """Print the snapshot NAME (of the list), or the file NAME, as tables."""
    console().print(tables.render(store.load(found(folder, name))))


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
