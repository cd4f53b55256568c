"""`quantchat snapshots`: list, show or remove saved snapshots."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from quantchat import paths
from quantchat.console import console
from quantchat.console.options import json_option, list_by_default
from quantchat.document.document import Block, Paragraph, Span, Words, paragraph
from quantchat.document.figures import plural, when
from quantchat.errors import UserError
from quantchat.report import snapshot
from quantchat.snapshot import recovered, store
from quantchat.snapshot.lookup import LATEST, find_snapshot
from quantchat.snapshot.store import SnapshotSummary
from quantchat.text import one_line


@click.group(invoke_without_command=True)
@click.option(
    "--snapshots",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Look in this folder.",
)
@json_option
@click.pass_context
def snapshots(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """List, show or remove snapshots; keep or discard recovered ones.

    Without a command, list them.
    """
    # In `quantchat --snapshots DIR snapshots`, the root command has stored DIR in the context.
    ctx.obj = folder or ctx.obj or paths.snapshots_dir()
    list_by_default(ctx, list_, as_json)


@snapshots.command("list")
@json_option
@click.pass_obj
def list_(folder: Path, as_json: bool) -> None:
    """List the snapshots, the newest first, with their kind and variants."""
    listed = store.recent(folder)
    if as_json:
        click.echo(json.dumps(_json_document(folder, listed)))
    elif listed:
        console.show(listed_blocks(listed))
        if any(recovered.is_recovered(line.path) for line in listed):
            click.echo(
                "To decide on a recovered snapshot: `quantchat snapshots keep NAME` or"
                " `quantchat snapshots discard NAME`"
            )
    else:
        click.echo(f"no snapshots in {one_line(str(folder))} yet; Ctrl+S in a comparison saves one")


@snapshots.command()
@click.argument("name")
@json_option
@click.pass_obj
def show(folder: Path, name: str, as_json: bool) -> None:
    """Print the snapshot NAME as tables.

    NAME is a name from `quantchat snapshots`, the beginning of a name, or a file. With --json, a
    snapshot that an older version saved is converted to the current file format.
    """
    if as_json:
        sys.stdout.write(store.dumps(store.load(find_snapshot(folder, name))).decode("ascii"))
        return
    console.show(snapshot.blocks(store.load(find_snapshot(folder, name))))


@snapshots.command()
@click.argument("name")
@click.pass_obj
def keep(folder: Path, name: str) -> None:
    """Keep the recovered conversation or measurement NAME as an ordinary snapshot."""
    click.echo(one_line(f"saved as {recovered.keep(find_snapshot(folder, name))}"))


@snapshots.command()
@click.argument("name")
@click.pass_obj
def discard(folder: Path, name: str) -> None:
    """Remove the recovered conversation or measurement NAME (or the beginning of its name).

    This command refuses snapshots that you saved yourself.
    """
    path = find_snapshot(folder, name)
    recovered.discard(path)
    click.echo(one_line(f"discarded {path}"))


@snapshots.command()
@json_option
@click.pass_obj
def latest(folder: Path, as_json: bool) -> None:
    """Print the path of the newest snapshot, which commands also find as "latest"."""
    path = str(find_snapshot(folder, LATEST))
    click.echo(json.dumps({"file": path}) if as_json else one_line(path))


@snapshots.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.pass_obj
def remove(folder: Path, names: tuple[str, ...], yes: bool) -> None:
    """Remove snapshots, saved or recovered. NAME is a name or the beginning of one."""
    # All names are looked up first, so that after a typo nothing is removed.
    paths_of = list(dict.fromkeys(find_snapshot(folder, name) for name in names))
    for path in paths_of:
        if not path.is_file():
            raise UserError("no such snapshot", where=one_line(str(path)))
    for path in paths_of:
        click.echo(one_line(str(path)), err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(
                "there is no terminal to confirm the removal", hint="--yes removes without asking"
            )
        click.confirm(f"Remove {plural(len(paths_of), 'snapshot')}?", abort=True, err=True)
    for path in paths_of:
        try:
            path.unlink()
        except OSError as error:
            raise UserError(
                f"cannot be removed: {error.strerror or error}", where=one_line(str(path))
            ) from None


# ------------------------------------------------------------ the list

_SAVED = len("2026-11-03 14:25 +0100")
_KIND = len("measurement")


def listed_blocks(listed: Iterable[SnapshotSummary]) -> list[Block]:
    """Return the name of each snapshot, and below it a line about its content or its problem.

    The line of a name is never wrapped, because users copy names.
    """
    parts: list[Block] = []
    for line in listed:
        name = Span(one_line(line.path.name), "heading")
        parts += [Paragraph((name,), wrap=False), _problem(line) if line.problem else _about(line)]
    return parts


def _about(line: SnapshotSummary) -> Paragraph:
    shown = " | ".join(one_line(label) for label in line.variants)
    text = f"{line.name}: {shown}" + (f", {plural(line.turns, 'turn')}" if line.turns else "")
    start = f"{one_line(when(line.created)):{_SAVED}} {line.kind:{_KIND}} "
    recovered_mark: list[Words] = (
        [("recovered ", "warning")] if recovered.is_recovered(line.path) else []
    )
    return paragraph(start, *recovered_mark, text, indent=2)


def _problem(line: SnapshotSummary) -> Paragraph:
    cure = f" ({line.cure})" if line.cure else ""
    return paragraph((f"{line.problem}{cure}", "bad"), indent=2)


def _json_document(folder: Path, listed: Iterable[SnapshotSummary]) -> dict[str, object]:
    """Return the list as JSON values; control characters in texts are not replaced."""
    return {
        "folder": str(folder),
        "snapshots": [
            {
                "file": line.path.name,
                "kind": line.kind,
                "created": line.created,
                "name": line.name,
                "shown": line.variants,
                "turns": line.turns,
                "recovered": recovered.is_recovered(line.path),
                "problem": line.problem,
                "cure": line.cure,
            }
            for line in listed
        ],
    }
