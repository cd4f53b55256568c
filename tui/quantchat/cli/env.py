"""`quantchat env`: make, list and remove Python environments with other library versions."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantchat import paths
from quantchat.console.options import json_option, list_by_default
from quantchat.engines.registry import environments as declared
from quantchat.engines.registry import libraries
from quantchat.errors import UserError
from quantchat.host.environments import Environment, Environments, read_requirements
from quantchat.text import one_line

if TYPE_CHECKING:
    from quantchat.document.document import Table

_LIBRARIES = ("torch", *(library.package for library in libraries()))
"""Names of the packages whose versions the list of environments shows."""


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def env(ctx: click.Context, as_json: bool) -> None:
    """Make, list or remove environments with other library versions. Without a command, list them.

    A variant with `env = "NAME"` in the profile runs in the environment NAME.
    """
    ctx.obj = Environments()
    list_by_default(ctx, list_, as_json)


@env.command()
@click.argument("name")
@click.option(
    "--requirements",
    "-r",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Requirements file for `pip install -r`. "
    + f"Not needed for {', '.join(declared())}: these have built-in requirements.",
)
@click.option(
    "--python",
    metavar="PYTHON",
    default=sys.executable,
    help="Python interpreter of the environment (default: the one that runs quantchat).",
)
@click.pass_obj
def create(environments: Environments, name: str, requirements: Path | None, python: str) -> None:
    """Make the environment NAME with pip."""
    from quantchat.console.stages import stage_display

    if not re.fullmatch(paths.ENVIRONMENT, name):
        raise UserError(
            "cannot be the name of an environment",
            where=name,
            hint="use letters, digits, dots and dashes, as in bnb-0.49",
        )
    if requirements is None and name not in declared():
        known = " and ".join(declared())
        raise UserError(
            f"no requirements are given; only {known} have built-in requirements",
            where=f"env {name}",
            hint="add --requirements FILE",
        )
    required = read_requirements(requirements) if requirements else declared()[name]
    with stage_display() as display:
        making = environments.create(name, required, display, file=requirements, python=python)
        try:
            made = asyncio.run(making)
        except OSError as error:
            raise UserError(
                f"cannot be made: {error.strerror or error}", where=f"env {name}"
            ) from error
    click.echo(one_line(f'{name}: Python {made.python}; to use it in a profile: env = "{name}"'))


@env.command("list")
@json_option
@click.pass_obj
def list_(environments: Environments, as_json: bool = False) -> None:
    """List the environments with their Python, their main libraries and their size."""
    entries = environments.entries()
    if as_json:
        rows = [
            {
                "name": one.name,
                "bytes": one.bytes,
                "python": one.python,
                "interpreter": str(one.interpreter),
                "requirements": one.requirements,
                "packages": one.packages,
            }
            for one in entries
        ]
        click.echo(json.dumps({"folder": str(environments.folder), "entries": rows}))
    elif entries:
        from quantchat.console.console import show

        show([environments_table(entries)])
    else:
        click.echo(f"no environments in {one_line(str(environments.folder))}")


@env.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def remove(environments: Environments, names: tuple[str, ...]) -> None:
    """Remove environments by NAME."""
    known = {one.name for one in environments.entries()}
    for name in names:
        if name not in known:
            raise UserError("no such environment", where=name, hint="`quantchat env` lists them")
    for name in dict.fromkeys(names):
        try:
            environments.remove(name)
        except OSError as error:
            raise UserError(f"cannot be removed: {error.strerror}", where=name) from error
        click.echo(f"removed {one_line(name)}")


def environments_table(entries: Sequence[Environment]) -> Table:
    """Return a table of the environments and their libraries, with the total size at the end."""
    from quantchat.document.document import Cell, Column, Table, cells
    from quantchat.document.figures import size

    columns = (
        Column("environment", footer="together"),
        Column("size", right=True, footer=size(sum(entry.bytes for entry in entries))),
        Column("Python"),
        Column("libraries"),
    )
    rows = []
    for entry in entries:
        known = {name.lower().replace("_", "-"): at for name, at in entry.packages.items()}
        versions = ", ".join(f"{name} {known[name]}" for name in _LIBRARIES if name in known)
        libraries = Cell(versions) if entry.python else Cell("never finished", role="bad")
        rows.append(cells((entry.name, size(entry.bytes), entry.python, libraries)))
    return Table("", columns, tuple(rows))
