"""`quantchat profiles`: list, show, check and create profiles."""

from __future__ import annotations

import json
import os
import shutil
import sys
from itertools import groupby
from pathlib import Path

import click

from quantchat.console.options import json_option, list_by_default
from quantchat.errors import UserError
from quantchat.files import write_whole
from quantchat.profile import library
from quantchat.profile.load import check_paths_exist, load, read_text
from quantchat.profile.template import template
from quantchat.text import neutralise, one_line


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def profiles(ctx: click.Context, as_json: bool) -> None:
    """List, show, check or create profiles. Without a command, list them."""
    list_by_default(ctx, list_, as_json)


@profiles.command("list")
@json_option
def list_(as_json: bool = False) -> None:
    """List the profiles that can be opened by name."""
    if as_json:
        click.echo(json.dumps([_json_entry(entry) for entry in library.entries()]))
        return
    # Wrap descriptions to the terminal's width, but keep them on one line in a pipe.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    formatter = click.HelpFormatter(width=width)
    for origin, entries in groupby(library.entries(), key=lambda entry: entry.origin):
        own = f" ({library.folder(origin)})" if origin is library.Origin.OWN else ""
        with formatter.section(one_line(f"{origin.value}{own}")):
            formatter.write_dl([(one_line(entry.name), _about(entry)) for entry in entries])
    click.echo(formatter.getvalue().strip("\n"))


def _about(entry: library.Entry) -> str:
    if entry.profile is None:
        return f"invalid: {one_line(str(entry.error))}"
    name, description = entry.profile.name, entry.profile.description
    return one_line(f"{name}: {description}" if description else name)


def _json_entry(entry: library.Entry) -> dict[str, object]:
    profile = entry.profile
    return {
        "name": entry.name,
        "file": str(entry.path),
        "origin": entry.origin.value,
        "title": profile.name if profile else None,
        "description": profile.description if profile else None,
        "variants": [variant.label for variant in profile.variants] if profile else [],
        "errors": list(entry.error.lines) if entry.error else [],
    }


@profiles.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Print the profile NAME (a name or a file). With --json, also print the default values."""
    if as_json:
        click.echo(json.dumps(load(library.find(name)).model_dump(mode="json"), indent=2))
        return
    click.echo(neutralise(read_text(library.find(name))), nl=False)


@profiles.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@json_option
def check(files: tuple[str, ...], as_json: bool) -> int:
    """Check profiles and print each error; FILE is a file or the name of a profile.

    Also reports folders and files that a profile names but that do not exist. Does not check models
    on the hub. The exit status is 1 if a profile has an error.
    """
    found: dict[str, list[str]] = {}
    for file in files:
        try:
            path = library.find(file)
            profile = load(path)
            check_paths_exist(profile, path)
        except UserError as error:
            found[file] = list(error.lines)
        else:
            found[file] = []
        if not as_json:
            lines = found[file] or [f"{file}: valid, {len(profile.variants)} variants"]
            click.echo("\n".join(map(one_line, lines)))
    if as_json:
        click.echo(json.dumps([{"file": file, "errors": lines} for file, lines in found.items()]))
    return 1 if any(found.values()) else 0


@profiles.command()
@click.argument("file", type=click.Path(path_type=Path), default="comparison.toml")
def new(file: Path) -> None:
    """Write a commented profile as a starting point (to comparison.toml, or to FILE)."""
    if file.suffix != ".toml":
        raise UserError(
            "the name of a profile must end in .toml",
            where=str(file),
            hint=f"use {file.with_suffix('.toml')}" if file.name.strip(".") else "",
        )
    if os.path.lexists(file):
        raise UserError("already exists", where=str(file), hint="choose another file name")
    try:
        write_whole(file, template().encode())
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(file)) from error
    click.echo(one_line(f"wrote {file}; edit it, then run: quantchat {file}"))
