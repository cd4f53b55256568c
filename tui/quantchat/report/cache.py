"""The checkpoints in the cache as a table (Rich)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from quantchat.checkpoints.cache import Entry, State
from quantchat.document.figures import size
from quantchat.document.style import plain_table
from quantchat.text import one_line

_NOTES = {
    State.WHOLE: "",
    State.DAMAGED: "damaged: made anew when wanted",
    State.UNFINISHED: "unfinished: goes on when wanted",
}


def cache_table(entries: Sequence[Entry]) -> Table:
    """Each checkpoint with what is to be said of it below, and what they take together.

    Names are typed again to remove one: all else is kept narrow for them.
    """
    table = plain_table(padding=(0, 1, 0, 0), show_footer=True)
    together = size(sum(entry.bytes for entry in entries))
    table.add_column("checkpoint", "together", overflow="fold")
    table.add_column("size", together, justify="right", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    for entry in entries:
        name = Text(one_line(entry.name))
        if note := _NOTES[entry.state]:
            name.append(f"\n  {note}", style="red" if entry.state is State.DAMAGED else "dim")
        used = datetime.fromtimestamp(entry.used_s)
        table.add_row(name, size(entry.bytes), f"{used:%Y-%m-%d %H:%M}")
    return table
