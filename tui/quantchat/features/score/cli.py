"""`quantchat score`: how far each variant is from the model it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from quantchat.console.running import judged, output_options

if TYPE_CHECKING:
    from quantchat.features.score.plan import Floor

LEAST_WINDOW, MOST_WINDOW = 8, 2**20


@click.command()
@click.argument("profile")
@click.option(
    "--reference",
    metavar="VARIANT|MODEL",
    help="Hold the variants against this one, by its label, or against another model. "
    "The model they are made from is the default.",
)
@click.option(
    "--text", "file", type=click.Path(path_type=Path), metavar="FILE", help="Read this UTF-8 text."
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="Read `own`, which ships with quantchat (the default), or `wikitext-2`, from the hub.",
)
@click.option(
    "--tokens",
    type=click.IntRange(1),
    metavar="N",
    help="Read the first N tokens (8192 unless said).",
)
@click.option("--full", is_flag=True, help="Read the whole text.")
@click.option(
    "--window",
    type=click.IntRange(LEAST_WINDOW, MOST_WINDOW),
    default=512,
    show_default=True,
    metavar="N",
    help="Tokens that a model reads at a time.",
)
@click.option(
    "--stride",
    type=click.IntRange(1),
    metavar="N",
    help="Tokens from one window to the next; a window unless said.",
)
@click.option(
    "--floor",
    type=click.Choice(["attention", "dtype", "none"]),
    default="attention",
    show_default=True,
    help="How the reference is run a second time, to see how far it is from itself.",
)
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
    window: int,
    stride: int | None,
    floor: str,
    folder: Path | None,
    as_json: bool,
) -> int:
    """Let each variant of PROFILE, and their reference, read a text; tell how far they are apart.

    Perplexity, KL divergence from the reference, Δp of the token that came and top-1 agreement,
    each with its standard error, beside how far the reference is from itself. One model is loaded
    at a time. Saves a snapshot. Ctrl+C ends it early and keeps the models that were read; the exit
    status is 1 where one failed.
    """
    from quantchat import corpus
    from quantchat.checkpoints.builder import CheckpointBuilder
    from quantchat.console import opening
    from quantchat.features.score import run
    from quantchat.features.score.plan import QUICK, ScorePlan
    from quantchat.features.score.tables import blocks
    from quantchat.session.reference import reference_of

    if file is not None and dataset is not None:
        raise click.UsageError("--text and --dataset are two texts: give one")
    if full and tokens is not None:
        raise click.UsageError("--full is the whole text: give it or --tokens")
    if stride is not None and stride > window:
        raise click.UsageError("--stride is longer than --window: text between would not be read")
    asked = opening.profile_of((profile,))
    plan = ScorePlan(
        corpus=corpus.text_file(file) if file else corpus.dataset(dataset or corpus.OWN),
        reference=reference_of(asked, reference),
        tokens=0 if full else tokens or QUICK,
        window=window,
        stride=stride or window,
        floor=cast("Floor", floor),
    )
    return judged(
        lambda on_model: run.score(asked, plan, maker=CheckpointBuilder(), on_model=on_model),
        blocks,
        folder or obj,
        as_json=as_json,
    )
