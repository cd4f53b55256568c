"""Prints parts of a document as a terminal shows them, without colours."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console

from quantchat.document.document import Block
from quantchat.document.terminal import renderable


def printed(parts: Block | Iterable[Block], width: int = 200) -> str:
    """Return the lines of `parts` on a terminal of `width` columns."""
    blocks = parts if isinstance(parts, Iterable) else [parts]
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, emoji=False)
    console.print(renderable(blocks), crop=False)
    return file.getvalue()
