"""What commands that measure share: progress while they do, saving, printing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from quantchat.console.options import save_option

if TYPE_CHECKING:
    from quantchat.document.document import Block
    from quantchat.profile.model import Profile
    from quantchat.session.comparison import Comparison
    from quantchat.session.model_jobs import OnModel
    from quantchat.snapshot.evaluation import EvaluationRecord
    from quantchat.snapshot.schema import Snapshot
    from quantchat.snapshot.score import ScoreRecord

    _Found = TypeVar("_Found", ScoreRecord, EvaluationRecord)

FAILED = 1
"""The exit status where a model could not do its job."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


def output_options(command: _Command) -> _Command:
    """Add `--save` and `--json`, passed as `folder` and `as_json`."""
    as_json = click.option(
        "--json", "as_json", is_flag=True, help="Print the snapshot as JSON, and nothing else."
    )
    return save_option(as_json(command))


def comparison_of(profile: Profile, max_new_tokens: int | None = None) -> Comparison:
    """The comparison of `profile`; its answers at most so many tokens long, if that is given."""
    from quantchat.checkpoints.builder import CheckpointBuilder
    from quantchat.session.comparison import Comparison

    comparison = Comparison(profile, maker=CheckpointBuilder())
    if max_new_tokens is not None:
        comparison.set_generation(
            profile.generation.model_copy(update={"max_new_tokens": max_new_tokens})
        )
    return comparison


def judged(
    work: Callable[[OnModel], Coroutine[Any, Any, tuple[Snapshot, _Found]]],
    blocks: Callable[[_Found], list[Block]],
    folder: Path | None,
    *,
    as_json: bool,
) -> int:
    """Do `work`, in which each model has the same job; the exit status, 1 where one failed.

    The snapshot goes into `folder`, by default the user's, and tables or JSON to stdout.
    """
    from quantchat.console.console import show
    from quantchat.console.progress import progress_display
    from quantchat.document.document import BLANK
    from quantchat.document.snapshot_tables import header
    from quantchat.host import signals
    from quantchat.snapshot import store

    store.make_ready(folder)
    with signals.held(notice):
        with progress_display() as display:
            result: tuple[Snapshot, _Found] = asyncio.run(work(display.on_model))

        def show_result(saved: Snapshot) -> None:
            show([*header(saved), BLANK, *blocks(result[1])])

        publish(result[0], folder, None if as_json else show_result)
    return FAILED if any(model.failure for model in result[1].models) else 0


def notice(text: str) -> None:
    """Tell the user `text` while something is measured."""
    click.echo(f"quantchat: {text}", err=True)


def publish(
    snapshot: Snapshot, folder: Path | None, show: Callable[[Snapshot], None] | None
) -> None:
    """Save `snapshot` into `folder`, by default the user's; `show` it, or print it as JSON.

    Shown also where it cannot be saved: it may have taken hours. Raises UserError then.
    """
    from quantchat.errors import UserError
    from quantchat.snapshot import store
    from quantchat.text import one_line

    try:
        path, unsaved = store.save(snapshot, folder), None
    except UserError as error:
        path, unsaved = None, error
    try:
        if show is None:
            sys.stdout.write(store.dumps(snapshot).decode("ascii"))
            sys.stdout.flush()
        else:
            show(snapshot)
    finally:  # also where the output has no room
        if path is not None:
            click.echo(f"saved {one_line(str(path))}", err=True)
    if unsaved is not None:
        raise unsaved
