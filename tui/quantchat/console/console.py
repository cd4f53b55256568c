"""The Rich consoles for tables (stdout) and progress (stderr)."""

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
"""Width of tables, in columns, if the output is not a terminal."""


class _Guarded(Console):
    """Prints no control characters except its own styles and cursor movements."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            shown = text if control else neutralise(text)
            yield segment if shown == text else Segment(shown, style, control)


def console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr that prints Rich's markup as it is, uninterpreted."""
    stream = sys.stderr if stderr else sys.stdout
    raw = stream.raw if isinstance(stream, NeutralStream) else stream
    out = _Guarded(file=raw, markup=False, emoji=False, highlight=False)
    if not out.is_terminal:
        out.width = PIPE_WIDTH
    return out


def show(blocks: Iterable[Block], *, stderr: bool = False) -> None:
    """Print parts of a document to stdout or stderr."""
    # Users copy names, so a line that is wider than the terminal is not cut off.
    console(stderr=stderr).print(terminal.renderable(blocks), crop=False)
