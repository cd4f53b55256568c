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
