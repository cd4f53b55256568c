"""Progress bars for stderr if it is a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from quantchat.console.console import console

_LONG, _SHORT, _WIDE = 24, 12, 100
"""A bar has the width `_LONG` if the terminal has at least `_WIDE` columns, otherwise `_SHORT`."""

_ECHO = 2
"""Columns left free at the right. When the user presses Ctrl+C, the terminal prints `^C` at the
cursor; at the end of a full line this would move the bars down by a line."""


class _Count(ProgressColumn):
    """Shows `7/30`; empty if the total is unknown (None) or 1."""

    def render(self, task: Task) -> Text:
        total = task.total or 0
        return Text(f"{int(task.completed)}/{int(total)}" if total > 1 else "")


class _Narrower(Progress):
    """A progress display that leaves the last `_ECHO` columns free, also after a resize."""

    def __init__(self, *columns: ProgressColumn, out: Console, **more: Any) -> None:
        self._out = out  # `get_renderables` is called before `self.console` exists
        super().__init__(*columns, console=out, **more)

    def get_renderables(self) -> Iterable[RenderableType]:
        width = max(1, self._out.width - _ECHO)
        for renderable in super().get_renderables():
            yield Constrain(renderable, width)


def bars(*, detail: bool = False, transient: bool = False) -> Progress:
    """Return a display with a line for each task: description, bar, count and elapsed time.

    With `detail`, the line also has the task's field `detail`. With `transient`, the lines are
    erased at the end.
    """
    out = console(stderr=True)
    # The detail gets the remaining width; a longer detail is cut.
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    more = [TextColumn("{task.fields[detail]}", markup=False, table_column=rest)] if detail else []
    return _Narrower(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=_LONG if out.width >= _WIDE else _SHORT),
        _Count(),
        TimeElapsedColumn(),
        *more,
        out=out,
        transient=transient,
        refresh_per_second=5,
        expand=detail,
    )
