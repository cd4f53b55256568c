"""Documents as one page of HTML that loads nothing: no network, no script, no font.

No text of a document can become markup: `_harmless` replaces control characters by visible marks,
Jinja escapes the text, and a Content-Security-Policy in the page forbids scripts and all content
from outside the page. Only the drawings of `drawing.svg` are inserted as markup.
"""

from __future__ import annotations

from typing import Any

import quantchat
from quantchat.document import drawing
from quantchat.document.document import Document, Facts, Plots, Table, Turns, Warnings
from quantchat.text import flat, neutralise

OURS = b'<meta name="generator" content="quantchat '
"""Text near the beginning of each page, by which an older report is recognised."""


def html(document: Document) -> bytes:
    """Return `document` as a page, UTF-8."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=PackageLoader("quantchat.document"),
        autoescape=True,
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["verbatim"] = lambda text: Markup(escape(neutralise(text)))  # noqa: S704
    for kind in (Facts, Plots, Table, Turns, Warnings):
        environment.tests[kind.__name__.lower()] = lambda part, kind=kind: isinstance(part, kind)
    page: str = environment.get_template("page.html.jinja").render(
        document=document,
        version=quantchat.__version__,
        svg=lambda plot: Markup(drawing.svg(plot)),  # noqa: S704  # labels in it are escaped
    )
    return page.encode()


def _harmless(value: Any) -> Any:
    """Return text on one line with its control characters marked; markup as it is."""
    return flat(value) if type(value) is str else value
