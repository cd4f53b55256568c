"""`quantchat report`: write snapshots as an HTML page, as Markdown, or as PNG and CSV."""

from __future__ import annotations

from pathlib import Path

import click

from quantchat.text import one_line


@click.command()
@click.argument("names", metavar="SNAPSHOT...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUTPUT",
    help="A file such as report.html or report.md (with its plots in the folder report_files), or "
    "a folder for PNG and CSV files.",
)
@click.option(
    "--force", is_flag=True, help="Replace a file that is not a report; use a non-empty folder."
)
@click.pass_obj
def report(obj: Path | None, names: tuple[str, ...], output: str, force: bool) -> None:
    """Write one report on all SNAPSHOTs.

    SNAPSHOT is a name from `quantchat snapshots`, the beginning of a name, a file, or `latest`. The
    ending of OUTPUT (.html, .md, or none for a folder) chooses the format. An older report is
    replaced; any other file is not.
    """
    from quantchat import paths
    from quantchat.report import writer
    from quantchat.snapshot import store
    from quantchat.snapshot.lookup import find_snapshot

    writer.form_of(output)  # reports a wrong ending before reading the snapshots
    files = [find_snapshot(obj or paths.snapshots_dir(), name) for name in names]
    path = writer.write([(file.name, store.load(file)) for file in files], output, force=force)
    click.echo(f"wrote {one_line(str(path))}", err=True)
