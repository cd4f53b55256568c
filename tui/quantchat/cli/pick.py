"""`quantchat pick`: measure many variants within limits, and recommend one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from quantchat.console.options import prompt_options
from quantchat.console.running import notice, output_options, publish
from quantchat.console.units import Share, Size, Tokens
from quantchat.text import one_line

if TYPE_CHECKING:
    from quantchat.features.pick.plan import PickPlan
    from quantchat.profile.model import Profile
    from quantchat.snapshot.pick import PickRecord, Preference
    from quantchat.snapshot.schema import Snapshot

NONE_MEETS, UNDECIDED = 1, 2
"""Exit statuses, the same as for gates. `NONE_MEETS`: no variant meets the limits. `UNDECIDED`: the
measurement does not decide whether a variant meets them."""


@click.command()
@click.argument("profile")
@click.option(
    "--methods",
    metavar="NAME[,NAME…]",
    default="",
    help="Make one variant of the model for each of these methods, such as gptq,nf4,int8,bf16. "
    "Default: the variants of the profile; for a model, every method.",
)
@click.option(
    "--reference",
    metavar="VARIANT|MODEL",
    help="Compare with this model, as `quantchat score` does.",
)
@click.option("--max-memory", type=Size(), metavar="SIZE", help="Most memory, such as 24GB.")
@click.option(
    "--context",
    type=Tokens(),
    metavar="TOKENS",
    help="Estimate the memory with this many tokens in the context, such as 16k (default: the "
    "longest answer plus 512).",
)
@click.option("--min-tps", type=click.FloatRange(0, min_open=True), help="Lowest decode tok/s.")
@click.option(
    "--max-kld", type=click.FloatRange(0, min_open=True), help="Largest mean KLD from the original."
)
@click.option(
    "--max-drop",
    type=Share(),
    metavar="SHARE",
    help="Largest loss of accuracy in the tasks, such as 1%; needs lm-evaluation-harness.",
)
@click.option(
    "--tasks",
    default="own",
    show_default=True,
    metavar="NAME[,NAME…]",
    help="Tasks for --max-drop.",
)
@click.option(
    "--prefer",
    type=click.Choice(["fastest", "smallest", "closest"]),
    default="fastest",
    show_default=True,
    help="What decides between variants that meet the limits.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Start no measurement after this time. If time is left after one measurement of each "
    "variant, repeat the measurements that can change the result.",
)
@click.option(
    "--rounds",
    type=click.IntRange(2, 1000),
    default=3,
    show_default=True,
    help="How many times each prompt is measured.",
)
@click.option(
    "--max-new-tokens", type=click.IntRange(2), default=128, show_default=True,
    help="Length of each measured answer in tokens.",
)  # fmt: skip
@click.option(
    "--tokens", type=click.IntRange(64), default=8192, show_default=True,
    help="Length in tokens of the text on which the KLD is measured.",
)  # fmt: skip
@prompt_options
@click.option("--fresh", is_flag=True, help="Measure everything again, even after Ctrl+C.")
@click.option("--yes", is_flag=True, help="Make missing checkpoints without asking.")
@click.option("--report", metavar="OUTPUT", help="Write a report: .html, .md or a folder.")
@output_options
@click.pass_obj
def pick(
    obj: Path | None,
    profile: str,
    methods: str,
    reference: str | None,
    max_memory: int | None,
    context: int | None,
    min_tps: float | None,
    max_kld: float | None,
    max_drop: float | None,
    tasks: str,
    prefer: str,
    minutes: float | None,
    rounds: int,
    max_new_tokens: int,
    tokens: int,
    prompt_texts: tuple[str, ...],
    file: Path | None,
    fresh: bool,
    yes: bool,
    report: str | None,
    folder: Path | None,
    as_json: bool,
) -> int:
    """Measure all variants of PROFILE, a profile or a model, and recommend one.

    Variants that cannot fit into memory are dropped. The others are loaded one after the other:
    their speed and memory are measured, and their predictions of a text are compared with those of
    the reference. The last lines recommend one variant, and name the variants that the measurement
    does not show to be different from it. The result is saved as a snapshot. Ctrl+C stops; the same
    command, also with other limits, then continues. Of a server, only the speed is measured.

    The exit status is 0 if the recommended variant is shown to meet all limits, 1 if no variant
    meets them, and 2 if it is undecided whether a variant meets them.
    """
    from quantchat.features.pick.plan import PickSettings, plan_of
    from quantchat.report import writer
    from quantchat.session import prompts

    if report is not None:
        writer.form_of(report)  # reports a wrong ending before measuring
    named = _profile(profile, methods, yes=yes)
    settings = PickSettings(
        prompts=prompts.from_options(prompt_texts, file, named.run),
        prefer=cast("Preference", prefer),
        max_memory=max_memory,
        context=context,
        min_tps=min_tps,
        max_kld=max_kld,
        max_drop=max_drop,
        tasks=tasks,
        reference=reference,
        minutes=minutes,
        rounds=rounds,
        max_new_tokens=max_new_tokens,
        tokens=tokens,
    )
    chosen_profile, plan = plan_of(named, settings)
    snapshot = _run_pick(chosen_profile, plan, folder or obj, fresh=fresh, as_json=as_json)
    if report is not None:
        path = writer.write([(snapshot.name, snapshot)], report)
        click.echo(f"wrote {one_line(str(path))}", err=True)
    assert snapshot.pick is not None  # noqa: S101  # a pick's snapshot has one
    return status_of(snapshot.pick)


def _profile(word: str, methods: str, *, yes: bool) -> Profile:
    """Return the profile that `word` names, or a profile with one variant for each method.

    If `word` is a profile and `methods` is empty, return that profile. Otherwise the variants are
    made from the model `word`, or from the reference model of the profile `word`, with `methods`
    (if empty, with all methods).
    """
    from quantchat.console import opening
    from quantchat.engines import registry
    from quantchat.profile import library, load
    from quantchat.session.reference import reference_of

    if library.names_profile(word):
        if not methods:
            return opening.profile_of((word,), yes=yes)
        word = reference_of(load.load(library.find(word)), None).model
    return opening.profile_of((word,), methods or ",".join(registry.methods()), yes=yes)


def _run_pick(
    profile: Profile, plan: PickPlan, folder: Path | None, *, fresh: bool, as_json: bool
) -> Snapshot:
    """Run the pick with its progress on stderr; save and print the result."""
    from quantchat.checkpoints.builder import CheckpointBuilder
    from quantchat.console.console import show
    from quantchat.console.progress import progress_display
    from quantchat.document.document import BLANK, warnings
    from quantchat.document.snapshot_tables import header
    from quantchat.features.pick import run, state
    from quantchat.features.pick.tables import blocks
    from quantchat.host import signals
    from quantchat.snapshot import store

    store.make_ready(folder)
    with (
        signals.handled(notice),
        state.open_store(state.key_of(profile, plan), fresh=fresh) as results,
    ):
        with progress_display() as display:
            picking = run.Picking(
                profile,
                plan,
                results,
                provider=CheckpointBuilder(),
                on_model=display.on_model,
                on_variant=display.on_variant,
            )
            snapshot = asyncio.run(run.pick(picking))

        def print_result(saved: Snapshot) -> None:
            assert saved.pick is not None  # noqa: S101  # a pick's snapshot has one
            flags = saved.measurement.flags if saved.measurement else []
            show([*header(saved), *warnings(flags), BLANK, *blocks(saved.pick)])

        publish(snapshot, folder, None if as_json else print_result)
        if picking.finished:
            results.remove()
    return snapshot


def status_of(record: PickRecord) -> int:
    """Return the exit status for the decision of a pick."""
    chosen = record.of(record.recommended) if record.recommended else None
    if chosen is not None:
        return 0 if chosen.meets_limits else UNDECIDED
    left = [one for one in record.candidates if not one.dropped and not one.misses_limit]
    return UNDECIDED if left else NONE_MEETS
