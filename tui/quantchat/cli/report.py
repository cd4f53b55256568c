"""`quantchat report`: snapshots as an HTML page, as Markdown, or as PNG and CSV files."""

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
    help="report.html, report.md (its plots in report_files), or a folder (for PNG and CSV).",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace a file that is not a report, or write into a folder with other files.",
)
@click.pass_obj
def report(obj: Path | None, names: tuple[str, ...], output: str, force: bool) -> None:
    """Write one report on each SNAPSHOT: a name of the list, its beginning, or a file.

    The ending of OUTPUT decides what is written. An older report is replaced, anything else is not.
    """
    from quantchat import paths
    from quantchat.report import writer
    from quantchat.snapshot import store
    from quantchat.snapshot.lookup import find_snapshot

    writer.form_of(output)  # a wrong name is reported before anything is read
    files = [find_snapshot(obj or paths.snapshots_dir(), name) for name in names]
    path = writer.write([(file.name, store.load(file)) for file in files], output, force=force)
    click.echo(f"wrote {one_line(str(path))}", err=True)
