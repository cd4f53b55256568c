"""`quantchat self-check`: how early a variant parts from itself."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import click

from quantchat.cli.options import prompt_options

_FAILED = 1


@click.command("self-check")
@click.argument("profile")
@prompt_options
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Longest answer, by default the profile's.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
def self_check(
    profile: str,
    given: tuple[str, ...],
    file: Path | None,
    max_new_tokens: int | None,
    as_json: bool,
) -> int:
    """Compare each of the first two variants of PROFILE with itself, at temperature 0.

    In turn again, together with the other, with the prompt in the cache, and with all tokens given
    at once, alone and in a batch: how many answers stay the same, and where the others part. Where
    a variant parts from itself as early as from another one, that difference says little. Ctrl+C
    ends it early and keeps what was found.
    """
    from quantchat.bench import prompts
    from quantchat.bench.comparison import Comparison
    from quantchat.bench.headless import LoadFailed, with_pair
    from quantchat.bench.self_check import SelfCheck
    from quantchat.cli.console import console
    from quantchat.cli.progress import progress_display
    from quantchat.profile import library, load
    from quantchat.quantize.store import Workshop
    from quantchat.report import self_check as report
    from quantchat.text import one_line

    asked = load.load(library.find(profile))
    texts = (*given, *(prompts.read(file) if file else ())) or prompts.of(asked.run)
    comparison = Comparison(asked, maker=Workshop())
    if max_new_tokens is not None:
        comparison.set_generation(
            asked.generation.model_copy(update={"max_new_tokens": max_new_tokens})
        )
    try:
        with progress_display() as display:
            check = SelfCheck(comparison, texts, display.on_step)
            found = asyncio.run(
                with_pair(comparison, check.run, stop=check.stop, on_variant=display.on_variant)
            )
    except LoadFailed as error:
        click.echo(f"quantchat: {one_line(str(error))}", err=True)
        return _FAILED
    if as_json:
        sys.stdout.write(json.dumps(report.document(found)) + "\n")
    else:
        console().print(report.render(found))
    return 0
