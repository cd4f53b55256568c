"""The checkpoints in the cache as a table (Rich)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich import box
from rich.table import Table
from rich.text import Text

from quantchat.quantize.cache import Entry, State
from quantchat.report.figures import size
from quantchat.report.tables import when
from quantchat.text import one_line

_NOTES = {
    State.WHOLE: "",
    State.DAMAGED: "damaged: made anew when wanted",
    State.UNFINISHED: "unfinished: goes on when wanted",
}


def cache_table(entries: Sequence[Entry]) -> Table:
    """Each checkpoint, and what they take together."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("checkpoint", "together", overflow="fold")
    table.add_column("size", size(sum(entry.bytes for entry in entries)), justify="right")
    table.add_column("last used")
    table.add_column("")
    for entry in entries:
        used = datetime.fromtimestamp(entry.used_s).astimezone().isoformat()
        note = Text(_NOTES[entry.state], style="red" if entry.state is State.DAMAGED else "")
        table.add_row(Text(one_line(entry.name)), size(entry.bytes), when(used), note)
    return table
