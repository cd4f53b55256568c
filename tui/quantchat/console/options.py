"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

COMPLETING = "_QUANTCHAT_COMPLETE"
"""Environment variable with which a shell asks for completions (see click, "Shell Completion")."""


def prompt_options(command: _Command) -> _Command:
    """Add `--prompt` and `--prompts`; the command gets them as `prompt_texts` and `file`."""
    one = click.option(
        "--prompt", "prompt_texts", multiple=True, metavar="TEXT", help="A prompt; can be repeated."
    )
    several = click.option(
        "--prompts",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Read prompts from a file: one per line, or JSONL.",
    )
    return one(several(command))


def pairs_option(command: _Command) -> _Command:
    """Add `--variants`, which the command gets as `pair` (see `opening.with_pair`).

    If `pair` is `all`, the command must call `pairs.for_each_pair`.
    """
    return click.option(
        "--variants",
        "pair",
        metavar="X,Y|all",
        default="",
        help="Take these two variants, by label or by their place in the profile (A, B, C, …). "
        "Default: the first two. `all`: compare the first variant with each of the others.",
    )(command)


def save_option(command: _Command) -> _Command:
    """Add `--save` and `-o`. The command gets `folder`: a folder, or a file that ends in .json."""
    return click.option(
        "--save",
        "-o",
        "folder",
        type=click.Path(path_type=Path),
        metavar="DIR|FILE",
        help="Save the snapshot in this folder, or as this file, which ends in .json.",
    )(command)


def json_option(command: _Command) -> _Command:
    """Add `--json`, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print only JSON.")(command)


def list_by_default(ctx: click.Context, listing: click.Command, as_json: bool) -> None:
    """Invoke `listing`, the list command of a group, if the user gave no command of the group."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(listing, as_json=as_json)
    elif as_json:
        raise click.UsageError(f"--json goes after the command: `{ctx.command_path} list --json`")


def reference_option(command: _Command) -> _Command:
    """Add `--reference`, passed as `reference`."""
    return click.option(
        "--reference",
        metavar="VARIANT|MODEL",
        help="Compare with this variant (by its label) or with another model. Default: the model "
        "that the variants are made from.",
    )(command)


LOW_BANDWIDTH = "quantchat.low_bandwidth"
"""Key of `Context.meta` for the option's value if the option stands before the command's name."""


def low_bandwidth_option(command: _Command) -> _Command:
    """Add `--low-bandwidth` (old name: `--few-bytes`).

    The command gets it as `low_bandwidth`, which is None if the option is not used, and must call
    `low_bandwidth_of`.
    """
    return click.option(
        "--low-bandwidth/--no-low-bandwidth",
        "--few-bytes/--no-few-bytes",
        "low_bandwidth",
        default=None,
        envvar=["QUANTCHAT_LOW_BANDWIDTH", "QUANTCHAT_FEW_BYTES"],
        help="For slow connections: draw streamed text once a second, no mouse "
        "(default: fewer draws over SSH).",
    )(command)


def low_bandwidth_of(ctx: click.Context, low_bandwidth: bool | None) -> bool | None:
    """Return the value of `--low-bandwidth`, which may stand before or after the command's name.

    `low_bandwidth` is the value after the name, which takes precedence; None if there is none.
    """
    return ctx.meta.get(LOW_BANDWIDTH) if low_bandwidth is None else low_bandwidth
