"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def prompt_options(command: _Command) -> _Command:
    """Add `--prompt` and `--prompts`, passed as `given` and `file`."""
    one = click.option(
        "--prompt", "given", multiple=True, metavar="TEXT", help="A prompt; can be repeated."
    )
    several = click.option(
        "--prompts",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Read prompts from a file: one per line, or JSONL.",
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


LOW_BANDWIDTH = "quantchat.low_bandwidth"
"""Key in click's context for the option if it is given before the command's name."""


def low_bandwidth_option(command: _Command) -> _Command:
    """Add `--low-bandwidth`, passed as `low_bandwidth`; None if it is not given.

    `--few-bytes` is its old name. See `low_bandwidth_of`.
    """
    return click.option(
        "--low-bandwidth/--no-low-bandwidth",
        "--few-bytes/--no-few-bytes",
        "low_bandwidth",
        default=None,
        envvar=["QUANTCHAT_LOW_BANDWIDTH", "QUANTCHAT_FEW_BYTES"],
        help="For slow connections: draw once a second, no mouse (default: fewer draws over SSH).",
    )(command)


def low_bandwidth_of(ctx: click.Context, low_bandwidth: bool | None) -> bool | None:
    """Return the option given after the command's name, else the one given before it."""
    return ctx.meta.get(LOW_BANDWIDTH) if low_bandwidth is None else low_bandwidth
