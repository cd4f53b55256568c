"""`quantchat score`: measure perplexity and KLD of each variant against its reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from quantchat.console.gates import GateOptions, gate_options
from quantchat.console.options import reference_option
from quantchat.console.running import output_options, run_and_judge

if TYPE_CHECKING:
    from quantchat.measuring.score_plan import Floor

LEAST_WINDOW, MOST_WINDOW = 8, 2**20


@click.command()
@click.argument("profile")
@reference_option
@click.option(
    "--text", "file", type=click.Path(path_type=Path), metavar="FILE", help="Use this UTF-8 text."
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="Use `own`, the built-in text (default), or `wikitext-2` from the hub.",
)
@click.option(
    "--tokens",
    type=click.IntRange(1),
    metavar="N",
    help="Use the first N tokens of the text (default: 8192).",
)
@click.option("--full", is_flag=True, help="Use the whole text.")
@click.option(
    "--window",
    type=click.IntRange(LEAST_WINDOW, MOST_WINDOW),
    metavar="N",
    help="Length of a window: the tokens that a model reads at once (default: up to 4096, as much"
    " as text, context and memory allow; 512 with --stride).",
)
@click.option(
    "--stride",
    type=click.IntRange(1),
    metavar="N",
    help="Tokens from the start of one window to the next (default: one window).",
)
@click.option(
    "--floor",
    type=click.Choice(["attention", "dtype", "none"]),
    default="attention",
    show_default=True,
    help="How the reference is run a second time, to measure the noise floor.",
)
@click.option(
    "--where",
    is_flag=True,
    help="Also find which layers and modules of each variant cause its error.",
)
@gate_options
@output_options
@click.pass_obj
def score(
    obj: Path | None,
    profile: str,
    reference: str | None,
    file: Path | None,
    dataset: str | None,
    tokens: int | None,
    full: bool,
    window: int | None,
    stride: int | None,
    floor: str,
    where: bool,
    gates: GateOptions,
    folder: Path | None,
    as_json: bool,
) -> int:
    """Measure how far the variants of PROFILE are from their reference on a text.

    Prints perplexity, KL divergence from the reference, Δp of the text's next token and top-1
    agreement, each with its standard error. The noise floor beside them is how far the reference is
    from itself when it is computed in another way. Loads one model at a time and saves a snapshot.
    Ctrl+C stops early and keeps the results of the finished models. The exit status is 1 if a model
    failed.

    A GATE is a condition such as 'b.kld < 0.05', as for `quantchat compare`:
    a, b, … are the variants in the profile's order, `ref` is the reference.
    """
    from quantchat import corpus
    from quantchat.checkpoints.builder import CheckpointBuilder
    from quantchat.console import opening
    from quantchat.features.score import run
    from quantchat.features.score.tables import blocks
    from quantchat.measuring.score_plan import DEFAULT_TOKENS, WINDOW, ScorePlan, longest_window
    from quantchat.session.reference import reference_of

    if file is not None and dataset is not None:
        raise click.UsageError("--text and --dataset both name a text: give only one of them")
    if full and tokens is not None:
        raise click.UsageError("--full and --tokens both set the length: give only one of them")
    if stride is not None and stride > (window or WINDOW):
        raise click.UsageError(
            f"--stride {stride} is longer than a window of {window or WINDOW}, so text would be "
            "skipped: give a stride of at most one window"
        )
    chosen_profile = opening.profile_of((profile,))
    gates.parse_early([variant.label for variant in chosen_profile.variants], "score")
    reference_variant = reference_of(chosen_profile, reference)
    fit, limit = window is None and stride is None, ""
    if window is None:
        window, limit = (
            longest_window([*chosen_profile.variants, reference_variant]) if fit else (WINDOW, "")
        )
    plan = ScorePlan(
        corpus=corpus.text_file(file) if file else corpus.dataset(dataset or corpus.OWN),
        reference=reference_variant,
        tokens=0 if full else tokens or DEFAULT_TOKENS,
        window=window,
        stride=stride or window,
        fit=fit,
        window_limit=limit,
        depths=True,
        floor=cast("Floor", floor),
    )
    return run_and_judge(
        lambda on_model: run.score(
            chosen_profile, plan, provider=CheckpointBuilder(), on_model=on_model, where=where
        ),
        blocks,
        folder or obj,
        as_json=as_json,
        gates=gates,
        kind="score",
    )
