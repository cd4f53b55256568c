"""Environments with other library versions as a table (Rich)."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from quantchat.document.figures import size
from quantchat.document.style import plain_table
from quantchat.engines.registry import libraries
from quantchat.host.environments import Environment
from quantchat.text import one_line

TOLD = ("torch", *(library.package for library in libraries()))
"""Libraries whose version is shown."""


def environments_table(entries: Sequence[Environment]) -> Table:
    """Each environment, and what they take together."""
    sizes = [entry.bytes for entry in entries]
    table = plain_table(show_footer=True)
    table.add_column("environment", "together", overflow="fold")
    table.add_column("size", size(sum(sizes)), justify="right")
    table.add_column("Python")
    table.add_column("libraries", overflow="fold")
    for entry, taken in zip(entries, sizes, strict=True):
        known = {name.lower().replace("_", "-"): at for name, at in entry.packages.items()}
        told = ", ".join(f"{name} {known[name]}" for name in TOLD if name in known)
        libraries = Text(one_line(told)) if entry.python else Text("never finished", style="red")
        table.add_row(Text(one_line(entry.name)), size(taken), one_line(entry.python), libraries)
    return table
