"""A report as one page of HTML that needs nothing else: no network, no script, no font.

Whatever a snapshot holds is text to it: Jinja escapes it all, a policy in the page forbids scripts
and every resource besides, and only the drawings of `drawing.svg` go in as markup.
"""

from __future__ import annotations

import quantchat
from quantchat.document import drawing
from quantchat.report.page_content import Report

OURS = b'<meta name="generator" content="quantchat '
"""Stands near the beginning of each page."""


def html(report: Report) -> bytes:
    """Return `report` as a page, UTF-8."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("quantchat.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template("page.html.jinja").render(
        report=report,
        version=quantchat.__version__,
        svg=lambda plot: Markup(drawing.svg(plot)),  # noqa: S704  # labels in it are escaped
    )
    return page.encode()
