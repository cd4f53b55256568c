"""Options that several commands have, in the same words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def prompt_options(command: _Command) -> _Command:
    """Add `--prompt` and `--prompts`, passed as `given` and `file`."""
    one = click.option(
        "--prompt", "given", multiple=True, metavar="TEXT", help="A prompt; may be repeated."
    )
    several = click.option(
        "--prompts",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Prompts from a file: one a line, or JSONL.",
    )
    return one(several(command))


def save_option(command: _Command) -> _Command:
    """Add `--save`, passed as `folder`."""
    return click.option(
        "--save",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Save the snapshot in this folder.",
    )(command)


FEW_BYTES = "quantchat.few_bytes"
"""Where a context keeps the option before a command's name for the one after it."""


def few_bytes_option(command: _Command) -> _Command:
    """Add `--few-bytes`, passed as `few_bytes`; None where it is not given (see `few_bytes_of`)."""
    return click.option(
        "--few-bytes/--no-few-bytes",
        default=None,
        envvar="QUANTCHAT_FEW_BYTES",
        help="Spare a slow connection: draw seldom, no mouse. Over SSH something in between.",
    )(command)


def few_bytes_of(ctx: click.Context, few_bytes: bool | None) -> bool | None:
    """The option as given after a command's name, else as before it."""
    return ctx.meta.get(FEW_BYTES) if few_bytes is None else few_bytes
