"""A report of snapshots in one of three forms, told by the name of what is to be written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from quantchat.document import output
from quantchat.errors import UserError
from quantchat.files import is_folder
from quantchat.report import csv_tables
from quantchat.report.markdown import OURS as OUR_MARKDOWN
from quantchat.report.markdown import markdown
from quantchat.report.page import OURS as OUR_PAGE
from quantchat.report.page import html
from quantchat.report.page_content import content
from quantchat.report.pictures import pictures
from quantchat.snapshot.schema import Snapshot

Form = Literal["html", "markdown", "folder"]

_FORMS: dict[str, Form] = {
    ".html": "html", ".htm": "html", ".md": "markdown", ".markdown": "markdown", "": "folder",
}  # fmt: skip


def form_of(name: str) -> Form:
    """The form that a report called `name` has. Raises UserError for an ending with none.

    Nor has the standard output any: a report is several files, but for a page.
    """
    if name == "-":
        raise UserError(
            "a report is not written to the standard output",
            where=name,
            hint="name a file that ends in .html or .md, or a folder; one called so is ./-",
        )
    if name.endswith(os.sep) or is_folder(Path(name)):
        return "folder"
    ending = Path(name).suffix
    if ending.lower() not in _FORMS:
        raise UserError(
            f"no report is written as {ending}",
            where=name,
            hint="use .html or .md, or end a folder's name with /",
        )
    return _FORMS[ending.lower()]


def write(snapshots: Sequence[tuple[str, Snapshot]], name: str, *, force: bool = False) -> Path:
    """Write the report of `snapshots`, each with the name of its file, to `name`; return its path.

    A page is one file. Markdown has its plots beside it, in a folder `…_files`. A folder gets the
    plots as PNG and the data as CSV. An older report is replaced, anything else only by `force`.
    Raises UserError where it cannot be written, before anything is.
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
