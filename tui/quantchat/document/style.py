"""How the tables look (Rich)."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text


def plain_table(title: str = "", **more: Any) -> Table:
    """An empty table with one line, below its head; `more` are other arguments of Rich's."""
    return Table(
        title=Text(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        **more,
    )
