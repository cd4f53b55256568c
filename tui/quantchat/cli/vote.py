"""`quantchat vote`: which variant answers better, judged without knowing which is which."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import click

from quantchat.console.options import (
    low_bandwidth_of,
    low_bandwidth_option,
    prompt_options,
    save_option,
)
from quantchat.errors import UserError


@click.command()
@click.argument("profile")
@prompt_options
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    metavar="N",
    help="Draw the sides by this seed, by default a new one; it is saved.",
)
@click.option(
    "--at-the-end",
    is_flag=True,
    help="Show the answers when both are over, in place of streaming both at one pace.",
)
@save_option
@low_bandwidth_option
@click.pass_context
def vote(
    ctx: click.Context,
    profile: str,
    given: tuple[str, ...],
    file: Path | None,
    seed: int | None,
    at_the_end: bool,
    folder: Path | None,
    low_bandwidth: bool | None,
) -> int:
    """Vote blindly on the answers of the first two variants of PROFILE.

    Each prompt stands alone. Names, kernels and speeds are hidden, and the sides are drawn by lot
    for each prompt. a, b, t or x: A is better, B is better, tie, both bad. At the end come the
    wins, an exact sign test and how many more votes would be wanted; all of it is saved as a
    snapshot. `quantchat compare` counts several sessions together.

    Decide beforehand how many prompts there will be: votes that are added until a difference is
    shown show one too often.
    """
    from quantchat.console import opening
    from quantchat.features.votes.voting import VotePlan
    from quantchat.session import prompts

    asked = opening.profile_of((profile,))
    texts = prompts.asked(given, file, asked.run)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("votes are given on the screen, which needs a terminal")
    from quantchat.app import run

    plan = VotePlan(texts, secrets.randbits(32) if seed is None else seed, not at_the_end)
    sparing = low_bandwidth_of(ctx, low_bandwidth)
    return run(asked, snapshots=folder or ctx.obj, votes=plan, low_bandwidth=sparing)
