"""`quantchat plan`: what a profile's variants will need, before anything is loaded."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

_NOT_SAID_TO_FIT = 1


@click.command()
@click.argument("profile")
@click.option(
    "--context",
    type=click.IntRange(1, 10**8),
    metavar="TOKENS",
    help="Prompt and answer the KV cache is for. Default: the longest answer and 512.",
)
@click.option("--offline", is_flag=True, help="Ask no hub for the headers of models not here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else; bytes.")
def plan(profile: str, context: int | None, offline: bool, as_json: bool) -> int:
    """Estimate the memory that the variants of PROFILE will need.

    Reads config.json and the headers of the weights, and loads nothing. Says whether the first two
    variants fit together on their device, beside what is in use there now: the exit status is 1
    where they do not, where torch cannot use the GPU, and where of no variant is known what it
    needs.
    """
    from quantchat.console import opening
    from quantchat.features.memory_plan.plan import make_plan
    from quantchat.system.sampler import DeviceSampler

    asked = opening.profile_of((profile,), yes=True)
    sampler = DeviceSampler()
    try:
        made = make_plan(asked, sampler.sample(), tokens=context, fetch=not offline)
    finally:
        sampler.close()
    if as_json:
        click.echo(json.dumps(_body(made), indent=2))
    else:
        from quantchat.console.console import show
        from quantchat.features.memory_plan.tables import blocks

        show(blocks(made))
    return (
        _NOT_SAID_TO_FIT if made.fit in ("cannot run", "does not fit") or made.nothing_known else 0
    )


def _body(made: Any) -> dict[str, Any]:
    """The plan as JSON values, with the sums that are worked out."""
    body = dataclasses.asdict(made)
    for variant, told in zip(made.variants, body["variants"], strict=True):
        if variant.estimate is not None:
            sums = {"total": variant.estimate.total, "peak": variant.estimate.peak}
            told["estimate"] = {**told["estimate"], **sums}
    for room, told in zip(made.rooms, body["rooms"], strict=True):
        told["fit"] = room.fit
    return {**body, "fit": made.fit}
