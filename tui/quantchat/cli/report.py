"""`quantchat report`: snapshots as a page, as Markdown, or as pictures and tables."""

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
    "--force", is_flag=True, help="Replace a file that is no report, write among a folder's others."
)
@click.pass_obj
def report(obj: Path | None, names: tuple[str, ...], output: str, force: bool) -> None:
    """Write one report of each SNAPSHOT, a name of the list, its beginning, or a file.

    How OUTPUT ends tells what is written. An older report is replaced, anything else is not.
    """
    from quantchat import paths
    from quantchat.report import writer
    from quantchat.snapshot import store
    from quantchat.snapshot.lookup import found

    writer.form_of(output)  # its mistake is told before anything is read
    files = [found(obj or paths.snapshots_dir(), name) for name in names]
    path = writer.write([(file.name, store.load(file)) for file in files], output, force=force)
    click.echo(f"wrote {one_line(str(path))}", err=True)
