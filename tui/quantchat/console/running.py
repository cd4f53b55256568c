"""Options, progress, saving and printing, shared by the commands that measure."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from quantchat.console.options import save_option

if TYPE_CHECKING:
    from quantchat.console.gates import GateOptions
    from quantchat.document.document import Block
    from quantchat.profile.model import Profile
    from quantchat.session.comparison import Comparison
    from quantchat.session.model_jobs import OnModel
    from quantchat.snapshot.evaluation import EvaluationRecord
    from quantchat.snapshot.figures import Kind
    from quantchat.snapshot.load_test import LoadTestRecord
    from quantchat.snapshot.schema import Snapshot
    from quantchat.snapshot.score import ScoreRecord

    _Found = TypeVar("_Found", ScoreRecord, EvaluationRecord, LoadTestRecord)

FAILED = 1
"""Exit status if a model failed."""

PRINT_AFTER_S = 3.0
"""Longest wait, in seconds, for the snapshot to be saved before the result is printed. After that,
saving continues while the result is printed."""

SAVE_S = 30.0
"""Longest wait, in seconds, for the snapshot to be saved after the result was printed. There is a
limit, because a network file system may hang for ever."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


def output_options(command: _Command) -> _Command:
    """Add `--save` and `--json`, passed as `folder` and `as_json`."""
    as_json = click.option(
        "--json", "as_json", is_flag=True, help="Print only the snapshot, as JSON."
    )
    return save_option(as_json(command))


def comparison_of(profile: Profile, max_new_tokens: int | None = None) -> Comparison:
    """Return the comparison of `profile`; `max_new_tokens`, if given, replaces the profile's."""
    from quantchat.checkpoints.builder import CheckpointBuilder
    from quantchat.session.comparison import Comparison

    comparison = Comparison(profile, provider=CheckpointBuilder())
    if max_new_tokens is not None:
        comparison.set_generation(
            profile.generation.model_copy(update={"max_new_tokens": max_new_tokens})
        )
    return comparison


def run_and_judge(
    work: Callable[[OnModel], Coroutine[Any, Any, tuple[Snapshot, _Found]]],
    blocks: Callable[[_Found], list[Block]],
    folder: Path | None,
    *,
    as_json: bool,
    gates: GateOptions,
    kind: Kind,
) -> int:
    """Run `work`, which runs the same job for each model; return the exit status.

    `work` returns a snapshot and the record in it, from which `blocks` makes tables. Saves the
    snapshot in `folder` (None: the user's default folder), and prints the tables, or with `as_json`
    the snapshot. The exit status is 1 if a model failed, otherwise that of the conditions `gates`
    on figures of `kind`.
    """
    from quantchat.console.console import show
    from quantchat.console.progress import progress_display
    from quantchat.document.document import BLANK
    from quantchat.document.snapshot_tables import header
    from quantchat.host import signals
    from quantchat.snapshot import store

    store.make_ready(folder)
    with signals.handled(notice):
        with progress_display() as display:
            result: tuple[Snapshot, _Found] = asyncio.run(work(display.on_model))

        def show_result(saved: Snapshot) -> None:
            show([*header(saved), BLANK, *blocks(result[1])])

        publish(result[0], folder, None if as_json else show_result)
    status = gates.judge_and_print(kind, result[0], as_json=as_json)
    return FAILED if any(model.failure for model in result[1].models) else status


def notice(text: str) -> None:
    """Print the message `text` on stderr during a measurement."""
    click.echo(f"quantchat: {text}", err=True)


def publish(
    snapshot: Snapshot, folder: Path | None, show: Callable[[Snapshot], None] | None
) -> None:
    """Save `snapshot` in `folder` (None: the user's default folder), and print it.

    `show` prints the snapshot; if `show` is None, it is printed as JSON. If the snapshot cannot be
    saved, or if the disk does not answer, it is still printed, because the measurement may have
    taken hours. Then UserError is raised.
    """
    from quantchat.daemon_thread import in_daemon_thread, wait_for_disk
    from quantchat.errors import UserError
    from quantchat.snapshot import store
    from quantchat.text import one_line

    saving, unsaved = in_daemon_thread(lambda: store.save(snapshot, folder), "save"), None
    if wait([saving], PRINT_AFTER_S).not_done:
        notice(f"the disk does not answer; waiting up to {SAVE_S:.0f} s for it")
    try:
        if show is None:
            sys.stdout.write(store.dumps(snapshot).decode("ascii"))
            sys.stdout.flush()
        else:
            show(snapshot)
    finally:  # also if the output cannot be written
        try:
            path = wait_for_disk(saving, SAVE_S)
        except UserError as error:
            unsaved = error
        else:
            click.echo(f"saved {one_line(str(path))}", err=True)
    if unsaved is not None:
        raise unsaved
