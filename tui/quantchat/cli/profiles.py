"""`quantchat profiles`: list, show, check and begin profiles."""

from __future__ import annotations

import os
import shutil
import sys
from itertools import groupby
from pathlib import Path

import click

from quantchat.errors import UserError
from quantchat.files import write_whole
from quantchat.profile import library
from quantchat.profile.load import check_there, load, read
from quantchat.profile.template import template
from quantchat.text import neutralise, one_line


@click.group(invoke_without_command=True)
@click.pass_context
def profiles(ctx: click.Context) -> None:
    """List, show, check or begin profiles. Without a command, list them."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@profiles.command("list")
def list_() -> None:
    """List the profiles that a name opens."""
    # A description is folded to the terminal's width, but stays one line for a pipe.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    formatter = click.HelpFormatter(width=width)
    for origin, entries in groupby(library.entries(), key=lambda entry: entry.origin):
        own = f" ({library.folder(origin)})" if origin is library.Origin.OWN else ""
        with formatter.section(one_line(f"{origin.value}{own}")):
            formatter.write_dl([(one_line(entry.name), _about(entry)) for entry in entries])
    click.echo(formatter.getvalue().strip("\n"))


def _about(entry: library.Entry) -> str:
    if entry.profile is None:
        return f"broken: {one_line(str(entry.error))}"
    name, description = entry.profile.name, entry.profile.description
    return one_line(f"{name}: {description}" if description else name)


@profiles.command()
@click.argument("name")
def show(name: str) -> None:
    """Print the profile called NAME (or the file NAME)."""
    click.echo(neutralise(read(library.find(name))), nl=False)


@profiles.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
def check(files: tuple[str, ...]) -> int:
    """Check profiles, files or names, and print each mistake.

    A folder or file that a profile names and that is not there is one too. No hub is asked.
    """
    broken = False
    for file in files:
        try:
            path = library.find(file)
            profile = load(path)
            check_there(profile, path)
        except UserError as error:
            broken = True
            for line in error.lines:
                click.echo(one_line(line))
        else:
            click.echo(one_line(f"{file}: good, {len(profile.variants)} variants"))
    return 1 if broken else 0


@profiles.command()
@click.argument("file", type=click.Path(path_type=Path), default="comparison.toml")
def new(file: Path) -> None:
    """Write a commented profile to start from (comparison.toml, or FILE)."""
    if file.suffix != ".toml":
        raise UserError("a profile's name ends in .toml", where=str(file))
    if os.path.lexists(file):
        raise UserError("is there already", where=str(file), hint="name another file")
    try:
        write_whole(file, template().encode())
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(file)) from error
    click.echo(one_line(f"{file} written; edit it, then: quantchat {file}"))
