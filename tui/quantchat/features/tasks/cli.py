"""`quantchat eval`: tasks that each variant does, and the answers that changed."""

from __future__ import annotations

import importlib.resources
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantchat.console.running import judged, output_options

if TYPE_CHECKING:
    from quantchat.profile.model import AnyVariant

OWN = "own"


@click.command(name="eval")
@click.argument("profile")
@click.option(
    "--tasks",
    "words",
    metavar="TASK,…",
    default=OWN,
    show_default=True,
    help="Tasks of lm-evaluation-harness by name, YAML files of tasks, or `own`, which ships with "
    "quantchat and needs no hub.",
)
@click.option(
    "--reference",
    metavar="VARIANT|MODEL",
    help="Hold the variants against this one, by its label, or against another model. "
    "The model they are made from is the default.",
)
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="The first N documents of each task."
)
@click.option(
    "--few-shot",
    type=click.IntRange(0, 64),
    metavar="N",
    help="Examples before each question; as many as the task says unless said. A task that says 0, "
    "as `own` does, keeps to it.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 1024),
    metavar="N",
    default=1,
    show_default=True,
    help="Documents that a model is asked at a time.",
)
@click.option("--chat-template", is_flag=True, help="Ask in the model's chat template.")
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
    chat_template: bool,
    folder: Path | None,
    as_json: bool,
) -> int:
    """Let each variant of PROFILE, and their reference, do tasks; tell which answers changed.

    Through lm-evaluation-harness (`pip install 'quantchat[eval]'`): accuracies with their standard
    errors, and beside them the answers lost and gained against the reference, with McNemar's exact
    test. One model is loaded at a time. Saves a snapshot. Ctrl+C ends it early and keeps the models
    that are done; the exit status is 1 where one failed.

    A YAML file of a task can run code of its own (`!function`): take such files from those you
    would take a program from.
    """
    from quantchat.checkpoints.builder import CheckpointBuilder
    from quantchat.console import opening
    from quantchat.features.tasks import run
    from quantchat.features.tasks.tables import blocks
    from quantchat.session.reference import reference_of

    asked = opening.profile_of((profile,))
    plan = run.EvaluationPlan(
        tasks=tuple(dict.fromkeys(_task(word.strip()) for word in words.split(","))),
        reference=reference_of(asked, reference),
        limit=limit or 0,
        few_shot=-1 if few_shot is None else few_shot,
        batch=batch,
        chat_template=chat_template,
    )
    _look_for_harness([plan.reference, *asked.variants])
    return judged(
        lambda on_model: run.evaluate(asked, plan, maker=CheckpointBuilder(), on_model=on_model),
        blocks,
        folder or obj,
        as_json=as_json,
    )


def _look_for_harness(variants: Sequence[AnyVariant]) -> None:
    """Raise UserError where lm-evaluation-harness is not there, before anything is made.

    Whether it is in a variant's own interpreter only that one can tell.
    """
    from quantchat.errors import UserError

    ours = [variant for variant in variants if not (variant.python or variant.env)]
    if ours and importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "lm-evaluation-harness is not installed",
            hint="python -m pip install 'quantchat[eval]'",
        )


def _task(word: str) -> str:
    """A task's name, or the path of its file. Raises UserError where there is none."""
    from quantchat.errors import UserError
    from quantchat.files import is_file
    from quantchat.text import one_line

    if not word:
        raise UserError(
            "is no task's name", where="--tasks", hint="name tasks, with commas between"
        )
    if word == OWN:
        return str(importlib.resources.files("quantchat.corpus") / "tasks" / "own.yaml")
    path = Path(word).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not is_file(path):
            raise UserError(
                "is no file", where=one_line(word), hint="name a task, or its YAML file"
            )
        return str(path.absolute())
    return word
