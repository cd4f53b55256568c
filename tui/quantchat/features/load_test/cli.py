"""`quantchat load`: measure throughput and latency of variants with many requests at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantchat.console.gates import gate_options
from quantchat.console.options import prompt_options
from quantchat.console.running import output_options, run_and_judge

if TYPE_CHECKING:
    from quantchat.console.gates import GateOptions


def _levels(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Parse comma-separated counts: `1,4,16`. Raises BadParameter."""
    from quantchat.features.load_test.plan import levels_in

    try:
        return levels_in(value) if value is not None else ()
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _rates(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Parse comma-separated rates: `0.5,2`. Raises BadParameter."""
    from quantchat.features.load_test.plan import rates_in

    try:
        return rates_in(value) if value else ()
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _slo(ctx: click.Context, param: click.Parameter, value: str) -> str:
    from quantchat.statistics.serving import limits

    try:
        limits(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value.strip()


@click.command()
@click.argument("profile")
@prompt_options
@click.option(
    "--concurrency",
    "--batch",
    "at_once",
    callback=_levels,
    metavar="N[,N…]",
    help="Number of requests that a server gets at once, or of prompts in a local model's batch "
    "(default: 1,4,16 without --rate).",
)
@click.option(
    "--rate",
    "rates",
    callback=_rates,
    metavar="R[,R…]",
    help="Send requests to a server at random times, R per second on average, without waiting for "
    "answers. With --concurrency, its highest number limits the unanswered requests.",
)
@click.option(
    "--requests",
    type=click.IntRange(1, 100_000),
    default=None,
    metavar="N",
    help="Requests per round for a server (default: 4 times the number at once, at least 8).",
)
@click.option(
    "--prompt-tokens",
    type=click.IntRange(1, 10**6),
    metavar="N",
    help="Length of a local model's prompts (default: 128), and approximate length of a server's "
    "prompts (default: the profile's prompts, unchanged).",
)
@click.option(
    "--output-tokens",
    type=click.IntRange(1, 10**5),
    default=128,
    show_default=True,
    metavar="N",
    help="Length of each answer; the end-of-sequence token is ignored.",
)
@click.option(
    "--mixed",
    is_flag=True,
    help="Make prompts of different lengths, from a quarter of --prompt-tokens to all of it.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    metavar="N",
    help="How many times each level is measured.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    default=0,
    show_default=True,
    metavar="N",
    help="Random seed for the times of requests and the lengths of prompts.",
)
@click.option(
    "--slo",
    callback=_slo,
    default="",
    metavar="LIMITS",
    help="Limits that a request must meet to count as goodput, such as "
    "'ttft_ms < 500, itl_ms.p95 < 50'.",
)
@gate_options
@output_options
@click.pass_obj
def load(
    obj: Path | None,
    profile: str,
    prompt_texts: tuple[str, ...],
    file: Path | None,
    at_once: tuple[int, ...],
    rates: tuple[float, ...],
    requests: int | None,
    prompt_tokens: int | None,
    output_tokens: int,
    mixed: bool,
    rounds: int,
    seed: int,
    slo: str,
    folder: Path | None,
    as_json: bool,
    gates: GateOptions,
) -> int:
    """Measure the variants of PROFILE with many requests at once.

    A server gets concurrent requests, as from vLLM's `bench serve`. A local model decodes static
    batches; batch sizes that do not fit into memory are skipped. Prints throughput, TTFT and ITL
    for each level (a value of --concurrency or --rate), and saves a snapshot with the times of
    every request. Ctrl+C stops early and keeps the finished rounds. The exit status is 1 if a
    variant failed.
    """
    from quantchat.checkpoints.builder import CheckpointBuilder
    from quantchat.console import opening
    from quantchat.features.load_test.plan import plan_of
    from quantchat.features.load_test.run import load_test
    from quantchat.features.load_test.tables import blocks
    from quantchat.session import prompts

    chosen_profile = opening.profile_of((profile,))
    gates.parse_early([variant.label for variant in chosen_profile.variants], "load")
    plan = plan_of(
        prompts.from_options(prompt_texts, file, chosen_profile.run),
        at_once=at_once,
        rates=rates,
        requests=requests,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        mixed=mixed,
        rounds=rounds,
        seed=seed,
        slo=slo,
    )
    return run_and_judge(
        lambda on_model: load_test(
            chosen_profile, plan, provider=CheckpointBuilder(), on_model=on_model
        ),
        blocks,
        folder or obj,
        as_json=as_json,
        gates=gates,
        kind="load",
    )
