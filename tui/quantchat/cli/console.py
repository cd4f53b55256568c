"""The console that tables are printed to."""

from __future__ import annotations

from rich.console import Console

PIPE_WIDTH = 120
"""Columns of the tables where the output is no terminal."""


def console() -> Console:
    """A console for stdout that parses nothing it is given."""
    out = Console(markup=False, emoji=False, highlight=False)
    if not out.is_terminal:
        out.width = PIPE_WIDTH
    return out
