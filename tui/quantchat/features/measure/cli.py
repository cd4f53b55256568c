"""`quantchat run`: measure two variants in rounds, without the screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantchat.console.gates import GateOptions, gate_options
from quantchat.console.options import pairs_option, prompt_options
from quantchat.console.pairs import ALL, for_each_pair
from quantchat.console.running import comparison_of, output_options
from quantchat.console.units import Share
from quantchat.errors import UserError
from quantchat.features.measure.printing import measure_and_print
from quantchat.text import one_line

if TYPE_CHECKING:
    from quantchat.profile.model import Profile

MOST_ROUNDS = 50
"""Most rounds with `--until-width`, unless `--rounds` sets another number."""


def _counts(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Parse comma-separated token counts: `128,512,2048`. Raises BadParameter."""
    from quantchat.measuring.rounds import MOST_TOKENS

    if value is None:
        return None
    try:
        counts = tuple(int(part) for part in value.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1 or max(counts) > MOST_TOKENS:
        raise click.BadParameter(
            f"{value!r} is not a list of token counts from 1 to {MOST_TOKENS:,}: give for example "
            "128,512,2048"
        )
    return counts


def _refuse_servers(profile: Profile) -> None:
    """Raise UserError if one of the two variants is a server.

    Prompts cannot be cut to a number of tokens for a server.
    """
    from quantchat.engines.registry import engine_of

    for variant in profile.variants[:2]:
        if engine_of(variant).is_server:
            raise UserError(
                f'"{one_line(variant.label)}" runs on a server, which reports no token ids: '
                "prompts cannot be cut to a length",
                where="--prompt-tokens",
                hint="do not set a length; give prompts of different lengths with --prompts FILE",
            )


@click.command()
@click.argument("profile")
@prompt_options
@pairs_option
@click.option(
    "--settings-of",
    "protocol",
    metavar="PROFILE",
    help="Take prompts, rounds, order and sampling settings from this other profile.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 10_000),
    help="How many times each prompt is measured; with --until-width, how many times at most "
    f"({MOST_ROUNDS} by default).",
)
@click.option(
    "--until-width",
    type=Share(),
    metavar="SHARE",
    help="Measure until the 95 % interval of the ratio of decode throughput is this narrow, such "
    "as 5% for ±5 %.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Start no round after this many minutes.",
)
@click.option(
    "--warmup", type=click.IntRange(0, 100), help="Prompts to answer first without measuring."
)
@click.option(
    "--order",
    type=click.Choice(["together", "in-turn"]),
    help="Both variants at once (contended), or one at a time (in-turn; default).",
)
@click.option("--max-new-tokens", type=click.IntRange(1), help="Longest answer in tokens.")
@click.option(
    "--ignore-eos",
    is_flag=True,
    help="Ignore the end-of-sequence token: equally long answers on both sides.",
)
@click.option(
    "--prompt-tokens",
    callback=_counts,
    metavar="N[,N…]",
    help="Measure prompts of exactly these lengths, to see the effect of the context.",
)
@click.option(
    "--output-tokens",
    callback=_counts,
    metavar="N[,N…]",
    help="Measure answers of exactly these lengths; with --prompt-tokens, all combinations.",
)
@gate_options
@output_options
@click.pass_context
def run(
    ctx: click.Context,
    profile: str,
    prompt_texts: tuple[str, ...],
    file: Path | None,
    pair: str,
    protocol: str | None,
    rounds: int | None,
    until_width: float | None,
    minutes: float | None,
    warmup: int | None,
    order: str | None,
    max_new_tokens: int | None,
    ignore_eos: bool,
    prompt_tokens: tuple[int, ...] | None,
    output_tokens: tuple[int, ...] | None,
    gates: GateOptions,
    folder: Path | None,
    as_json: bool,
) -> int:
    """Measure two variants of PROFILE in rounds, without the screen.

    Loads both variants and warms them up. Then each of the two answers each prompt once per round.
    At the end the ratios B ÷ A are printed with 95 % confidence intervals, and a snapshot is saved.
    Ctrl+C stops early and keeps the answers measured so far.

    With --until-width, the measurement ends when the interval of the ratio of decode throughput is
    narrow enough after two rounds in a row, with at least five rounds in all. It also ends when
    --rounds or --minutes are reached.

    A GATE is a condition such as 'b.decode_tps < 0.95 * a.decode_tps', as for `quantchat compare`:
    a is the first variant, b the second.
    """
    if pair == ALL:
        return for_each_pair(ctx)
    from quantchat.console import opening
    from quantchat.measuring.rounds import Plan, Task
    from quantchat.profile import library, load
    from quantchat.session import prompts

    chosen_profile = opening.with_pair(opening.profile_of((profile,)), pair)
    if prompt_tokens:
        _refuse_servers(chosen_profile)
    gates.parse_early([variant.label for variant in chosen_profile.variants[:2]])
    if protocol is not None:
        other = load.load(library.find(protocol))
        chosen_profile = chosen_profile.model_copy(
            update={"run": other.run, "generation": other.generation}
        )
    texts = prompts.from_options(prompt_texts, file, chosen_profile.run)
    tasks = tuple(
        Task(text, length, output)
        for length in prompt_tokens or (0,)
        for output in output_tokens or (0,)
        for text in texts
    )
    plan = Plan(
        tasks=tasks,
        rounds=rounds or (chosen_profile.run.rounds if until_width is None else MOST_ROUNDS),
        warmup=chosen_profile.run.warmup if warmup is None else warmup,
        order="together" if order == "together" else "in-turn",
        ignore_eos=ignore_eos,
        until_width=until_width,
        minutes=minutes,
    )
    comparison = comparison_of(chosen_profile, max_new_tokens)
    return measure_and_print(comparison, plan, folder or ctx.obj, as_json=as_json, gates=gates)
