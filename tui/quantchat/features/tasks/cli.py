"""`quantchat eval`: measure the accuracy of variants on tasks, and count the changed answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from quantchat.console.gates import GateOptions, gate_options
from quantchat.console.options import reference_option
from quantchat.console.running import output_options, run_and_judge

if TYPE_CHECKING:
    from quantchat.measuring.score_plan import Floor

OWN = "own"
"""Name of the built-in task: a copy of `measuring.evaluating.OWN`, which is slow to import."""


@click.command(name="eval")
@click.argument("profile")
@click.option(
    "--tasks",
    "words",
    metavar="TASK,…",
    default=OWN,
    show_default=True,
    help="Names of lm-evaluation-harness tasks, YAML files of tasks, or `own`, the built-in task "
    "that needs no hub.",
)
@reference_option
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Use the first N questions of each task."
)
@click.option(
    "--few-shot",
    type=click.IntRange(0, 64),
    metavar="N",
    help="Examples before each question (default: what the task sets). A task that sets 0, such as "
    "`own`, always uses 0.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 1024),
    metavar="N",
    default=1,
    show_default=True,
    help="Questions per batch.",
)
@click.option(
    "--floor",
    type=click.Choice(["attention", "dtype", "none"]),
    default="none",
    show_default=True,
    help="Ask the reference a second time with another attention or dtype: the answers that change "
    "are noise.",
)
@click.option("--chat-template", is_flag=True, help="Apply the model's chat template.")
@gate_options
@output_options
@click.pass_obj
def evaluate(
    obj: Path | None,
    profile: str,
    words: str,
    reference: str | None,
    limit: int | None,
    few_shot: int | None,
    batch: int,
    floor: str,
    chat_template: bool,
    gates: GateOptions,
    folder: Path | None,
    as_json: bool,
) -> int:
    """Measure the accuracy of the variants of PROFILE, and of their reference, on tasks.

    Uses lm-evaluation-harness (`pip install 'quantchat[eval]'`). Prints accuracies with standard
    errors. Also prints how many answers are lost (right in the reference, wrong in the variant) and
    gained (the reverse), with McNemar's exact test. Loads one model at a time and saves a snapshot.
    Ctrl+C stops early and keeps the results of the finished models. The exit status is 1 if a model
    failed.

    A GATE is a condition such as 'b.accuracy > ref.accuracy - 0.01', as for `quantchat compare`:
    a, b, … are the variants in the profile's order, `ref` is the reference.

    The YAML file of a task can run code (`!function`): use only files whose origin you trust.
    """
    from quantchat.checkpoints.builder import CheckpointBuilder
    from quantchat.console import opening
    from quantchat.features.tasks.tables import blocks
    from quantchat.measuring import evaluating
    from quantchat.session.reference import reference_of

    chosen_profile = opening.profile_of((profile,))
    gates.parse_early([variant.label for variant in chosen_profile.variants], "eval")
    plan = evaluating.EvaluationPlan(
        tasks=tuple(
            dict.fromkeys(evaluating.task_named(word.strip()) for word in words.split(","))
        ),
        reference=reference_of(chosen_profile, reference),
        limit=limit or 0,
        few_shot=-1 if few_shot is None else few_shot,
        batch=batch,
        chat_template=chat_template,
        floor=cast("Floor", floor),
    )
    evaluating.require_harness([plan.reference, *chosen_profile.variants])
    return run_and_judge(
        lambda on_model: evaluating.evaluate(
            chosen_profile, plan, provider=CheckpointBuilder(), on_model=on_model
        ),
        blocks,
        folder or obj,
        as_json=as_json,
        gates=gates,
        kind="eval",
    )
