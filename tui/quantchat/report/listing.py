"""The list of snapshots as a table (Rich)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from quantchat.report.figures import when
from quantchat.snapshot.recovered import is_recovered
from quantchat.snapshot.store import Listed
from quantchat.text import one_line


def list_table(listed: Iterable[Listed]) -> Table:
    """The list of snapshots, with the problem of each that cannot be read."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("file", "saved", "profile", "shown", "turns"):
        table.add_column(name, overflow="fold", justify="right" if name == "turns" else "left")
    for line in listed:
        file = Text(one_line(line.path.name))
        if line.problem:
            table.add_row(file, "", Text(f"broken: {one_line(line.problem)}", style="red"))
            continue
        shown = " | ".join(one_line(label) for label in line.variants)
        table.add_row(
            file,
            Text(one_line(when(line.created))),
            Text(one_line(line.name)) + recovered_mark(line.path),
            Text(shown),
            Text(line.without if line.without and not line.turns else str(line.turns)),
        )
    return table


def recovered_mark(path: Path) -> Text:
    """What tells a conversation that was never saved by its user."""
    return Text("  recovered", style="yellow") if is_recovered(path) else Text()
