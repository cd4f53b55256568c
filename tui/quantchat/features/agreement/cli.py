"""`quantchat agreement`: show how early two answers of one variant to a prompt differ."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import click

from quantchat.console.options import pairs_option, prompt_options
from quantchat.console.pairs import ALL, for_each_pair
from quantchat.console.running import comparison_of, notice


@click.command()
@click.argument("profile")
@prompt_options
@pairs_option
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Longest answer in tokens (default: the profile's).",
)
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
@click.pass_context
def agreement(
    ctx: click.Context,
    profile: str,
    prompt_texts: tuple[str, ...],
    file: Path | None,
    pair: str,
    max_new_tokens: int | None,
    as_json: bool,
) -> int:
    """Compare each of two variants of PROFILE with itself, at temperature 0.

    Each variant answers each prompt several times: one variant at a time, together with the other
    variant, and with the prompt in the KV cache. The first answer is also checked by teacher
    forcing (the variant reads the answer instead of generating it), alone and in a batch of two.
    The table shows how many answers stay the same, and how early the others diverge. If a variant
    diverges from its own first answer as early as from the other variant's answer, the difference
    between the two variants says nothing about them. Ctrl+C stops early and prints the results so
    far.
    """
    if pair == ALL:
        return for_each_pair(ctx)
    from quantchat.console import opening
    from quantchat.console.console import show
    from quantchat.console.progress import progress_display
    from quantchat.features.agreement import tables as report
    from quantchat.features.agreement.rerun_agreement import AgreementCheck
    from quantchat.host import signals
    from quantchat.session import prompts
    from quantchat.session.runner import with_pair

    chosen_profile = opening.with_pair(opening.profile_of((profile,)), pair)
    texts = prompts.from_options(prompt_texts, file, chosen_profile.run)
    comparison = comparison_of(chosen_profile, max_new_tokens)
    with progress_display() as display, signals.handled(notice):
        check = AgreementCheck(comparison, texts, display.on_step)
        found = asyncio.run(
            with_pair(
                comparison, check.run, stop=check.stop, end=check.end, on_variant=display.on_variant
            )
        )
    if as_json:
        sys.stdout.write(json.dumps(report.json_document(found)) + "\n")
    else:
        show(report.blocks(found))
    return 0
