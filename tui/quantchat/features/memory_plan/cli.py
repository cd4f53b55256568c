"""`quantchat plan`: estimate the memory of a profile's variants without loading them."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from quantchat.measuring.memory_plan import MemoryPlan

_DOES_NOT_FIT = 1
"""Exit status if the variants do not fit, cannot use the GPU, or cannot be estimated."""


@click.command()
@click.argument("profile")
@click.option(
    "--context",
    type=click.IntRange(1, 10**8),
    metavar="TOKENS",
    help="Tokens of prompt and answer in the KV cache. Default: the longest answer plus 512.",
)
@click.option("--offline", is_flag=True, help="Do not read headers of models from the hub.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON; sizes are in bytes.")
def plan(profile: str, context: int | None, offline: bool, as_json: bool) -> int:
    """Estimate the memory that the variants of PROFILE will need.

    Reads config.json and the headers of the weight files; loads no model. Shows whether the first
    two variants fit together into the memory that is free now on their device. The exit status is 1
    if they do not fit, if torch cannot use the GPU, or if no variant can be estimated.
    """
    from quantchat.console import opening
    from quantchat.measuring.memory_plan import make_plan
    from quantchat.system.sampler import DeviceSampler

    chosen_profile = opening.profile_of((profile,), yes=True)
    sampler = DeviceSampler()
    try:
        result = make_plan(
            chosen_profile, sampler.sample(), tokens=context, fetch=not offline, search_limits=True
        )
    finally:
        sampler.close()
    if as_json:
        click.echo(json.dumps(_body(result), indent=2))
    else:
        from quantchat.console.console import show
        from quantchat.features.memory_plan.tables import blocks

        show(blocks(result))
    return (
        _DOES_NOT_FIT if result.fit in ("cannot run", "does not fit") or result.nothing_known else 0
    )


def _body(plan: MemoryPlan) -> dict[str, object]:
    """Return the plan as JSON values, with the sums and verdicts that properties compute."""
    body = dataclasses.asdict(plan)
    for variant, values in zip(plan.variants, body["variants"], strict=True):
        if variant.estimate is not None:
            sums = {"total": variant.estimate.total, "peak": variant.estimate.peak}
            values["estimate"] = {**values["estimate"], **sums}
    for device, values in zip(plan.devices, body["devices"], strict=True):
        values["fit"] = device.fit
    return {**body, "fit": plan.fit}
