"""`quantchat vote`: choose the better answer without knowing which variant wrote it."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

import click

from quantchat.console.options import (
    json_option,
    low_bandwidth_of,
    low_bandwidth_option,
    pairs_option,
    prompt_options,
    save_option,
)
from quantchat.console.pairs import ALL, for_each_pair
from quantchat.errors import UserError

_SAVED = "quantchat.cli.vote.saved"
"""Key of `Context.meta` for the list of saved snapshots, one for each pair that was voted on."""


@click.command()
@click.argument("profile")
@prompt_options
@pairs_option
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    metavar="N",
    help="Random seed for the sides (default: a new one). The snapshot records it.",
)
@click.option(
    "--at-the-end",
    is_flag=True,
    help="Show both answers only when both are complete. By default both stream at the same pace, "
    "so that their speed gives nothing away.",
)
@save_option
@json_option
@low_bandwidth_option
@click.pass_context
def vote(
    ctx: click.Context,
    profile: str,
    prompt_texts: tuple[str, ...],
    file: Path | None,
    pair: str,
    seed: int | None,
    at_the_end: bool,
    folder: Path | None,
    as_json: bool,
    low_bandwidth: bool | None,
) -> int:
    """Vote blind on the answers of two variants of PROFILE.

    Each prompt is a new chat. Names, kernels and speeds are hidden, and it is random for each
    prompt which variant is on the left. Keys: a (A is better), b (B is better), t (tie), x (both
    bad). The result has the number of votes for each variant, an exact sign test, and how many more
    votes the test would need to show a preference. It is saved as a snapshot; `quantchat compare`
    adds up several sessions. With --json the result is printed after the screen is closed; standard
    output may be a file or a pipe.

    Choose the number of prompts before you start: if you add votes until a difference shows, you
    will too often find one that does not exist. With `--variants all` you vote on the first variant
    against each other variant, one pair after the other, and p is corrected for the number of pairs
    (Holm). If you leave the screen of a pair without a vote, the command ends.
    """
    pairs: list[Path] = ctx.meta.setdefault(_SAVED, [])
    if pair == ALL:
        return _on_each_pair(ctx, pairs)
    from quantchat.console import opening
    from quantchat.features.votes.voting import VotePlan
    from quantchat.session import prompts

    chosen_profile = opening.with_pair(opening.profile_of((profile,)), pair)
    texts = prompts.from_options(prompt_texts, file, chosen_profile.run)
    from quantchat.app import run

    plan = VotePlan(texts, secrets.randbits(32) if seed is None else seed, not at_the_end)
    bandwidth = low_bandwidth_of(ctx, low_bandwidth)
    saved: list[Path] = []
    status = run(
        chosen_profile,
        snapshots=folder or ctx.obj,
        votes=plan,
        low_bandwidth=bandwidth,
        on_voted=saved.append,
    )
    pairs += saved
    if as_json and not saved:
        raise UserError("no votes were given, so there is no result to print")
    if as_json:
        _print_json(saved[0])
    return status


def _on_each_pair(ctx: click.Context, saved: list[Path]) -> int:
    """Vote on each pair; then show all results, with p corrected for the number of pairs.

    The snapshot of each pair is appended to `saved`. After a pair without votes, which has no
    snapshot, no further pair is shown.
    """
    status = for_each_pair(ctx, lambda done: len(saved) == done)
    if saved:
        from quantchat.console.console import show
        from quantchat.features.votes.tables import pairs_blocks
        from quantchat.snapshot import store

        show(pairs_blocks([store.load(file) for file in saved]))
    return status


def _print_json(file: Path) -> None:
    """Print the result of the votes in the snapshot `file`, and the file's path, as JSON."""
    from quantchat.features.votes.tables import json_document
    from quantchat.snapshot import store
    from quantchat.snapshot.pooled_votes import pool_votes

    result = json_document(pool_votes([(str(file), store.load(file))]))
    sys.stdout.write(json.dumps({**result, "snapshot": str(file)}) + "\n")
