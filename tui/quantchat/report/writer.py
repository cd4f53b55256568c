"""Write a report of snapshots in one of three forms, chosen by the name of the output."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from quantchat.document import output
from quantchat.document.drawing import pictures
from quantchat.document.html import OURS as OUR_PAGE
from quantchat.document.html import html
from quantchat.document.markdown import OURS as OUR_MARKDOWN
from quantchat.document.markdown import markdown
from quantchat.errors import UserError
from quantchat.files import is_folder
from quantchat.report import csv_tables
from quantchat.report.content import content
from quantchat.snapshot.schema import Snapshot

Form = Literal["html", "markdown", "folder"]

_FORMS: dict[str, Form] = {
    ".html": "html", ".htm": "html", ".md": "markdown", ".markdown": "markdown", "": "folder",
}  # fmt: skip
"""Ending of the output's name → form of the report."""


def form_of(name: str) -> Form:
    """Return the form of a report called `name`. Raises UserError for any other ending.

    The standard output is refused too: most forms are several files.
    """
    if name == "-":
        raise UserError(
            "a report is not written to the standard output",
            where=name,
            hint="name a file that ends in .html or .md, or a folder; a folder called - is ./-",
        )
    if name.endswith(os.sep) or is_folder(Path(name)):
        return "folder"
    ending = Path(name).suffix
    if ending.lower() not in _FORMS:
        raise UserError(
            f"a report cannot be written as {ending}",
            where=name,
            hint="use .html or .md, or end a folder's name with /",
        )
    return _FORMS[ending.lower()]


def write(snapshots: Sequence[tuple[str, Snapshot]], name: str, *, force: bool = False) -> Path:
    """Write the report of `snapshots`, each with the name of its file, to `name`; return its path.

    An HTML page is one file. Markdown has its plots in a folder `…_files` beside it. A folder gets
    the plots as PNG and the data as CSV. An older report of this name is replaced; other files are
    overwritten only with `force`.
    Raises UserError before anything is written if the report cannot be written.
    """
    form, path = form_of(name), Path(name)
    if form == "html":
        output.check_file(path, OUR_PAGE, force=force)
        output.write_file(path, html(content(snapshots)))
    elif form == "markdown":
        beside = path.with_name(f"{path.stem}_files")
        output.check_file(path, OUR_MARKDOWN, force=force)
        output.check_folder(beside, force=force)
        report = content(snapshots)
        output.write_folder(beside, pictures(report))
        output.write_file(path, markdown(report, beside.name))
    else:
        output.check_folder(path, force=force)
        files = {**pictures(content(snapshots)), **csv_tables.tables(snapshots)}
        output.write_folder(path, files)
    return path
