"""The consoles that tables and progress are printed to."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from quantchat.console.streams import NeutralStream
from quantchat.document import terminal
from quantchat.document.document import Block
from quantchat.text import neutralise

PIPE_WIDTH = 120
"""Columns of the tables where the output is no terminal."""


class _Guarded(Console):
    """Prints no control character but those of its own styles, and of a progress bar's cursor."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            shown = text if control else neutralise(text)
            yield segment if shown == text else Segment(shown, style, control)


def console(*, stderr: bool = False) -> Console:
    """A console for stdout, or stderr, that parses nothing it is given."""
    stream = sys.stderr if stderr else sys.stdout
    raw = stream.raw if isinstance(stream, NeutralStream) else stream
    out = _Guarded(file=raw, markup=False, emoji=False, highlight=False)
    if not out.is_terminal:
        out.width = PIPE_WIDTH
    return out


def show(blocks: Iterable[Block]) -> None:
    """Print parts of a document to stdout."""
    # What a reader copies may be wider than the terminal: nothing of it is cut off.
    console().print(terminal.rendered(blocks), crop=False)
