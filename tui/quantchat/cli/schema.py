"""`quantchat schema`: print the JSON Schema of a file format, for editors."""

from __future__ import annotations

import json

import click


@click.group(no_args_is_help=False)
def schema() -> None:
    """Print the JSON Schema of a file format."""


@schema.command()
def profile() -> None:
    """Print the JSON Schema (draft 2020-12) of profiles."""
    from quantchat.profile.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@schema.command()
def preferences() -> None:
    """Print the JSON Schema (draft 2020-12) of the user's preferences."""
    from quantchat.app.preferences import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@schema.command()
def snapshot() -> None:
    """Print the JSON Schema (draft 2020-12) of snapshots."""
    from quantchat.snapshot.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
