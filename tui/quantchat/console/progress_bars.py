"""The bars that progress is shown with in a terminal, on stderr."""

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
"""Cells of a bar in a terminal of `_WIDE` columns and more, and in a narrower one."""

_ECHO = 2
"""Columns left free: a terminal writes `^C` where the cursor is, and at the end of a full line
that would move all below by one."""


class _Count(ProgressColumn):
    """`7/30`; nothing where there is nothing to count, under way (None) or over (1)."""

    def render(self, task: Task) -> Text:
        total = task.total or 0
        return Text(f"{int(task.completed)}/{int(total)}" if total > 1 else "")


class _Narrower(Progress):
    """Leaves the last columns of the terminal free, whatever its width is at the time."""

    def __init__(self, *columns: ProgressColumn, out: Console, **more: Any) -> None:
        self._out = out  # asked for its width before there is a `console`
        super().__init__(*columns, console=out, **more)

    def get_renderables(self) -> Iterable[RenderableType]:
        width = max(1, self._out.width - _ECHO)
        for renderable in super().get_renderables():
            yield Constrain(renderable, width)


def bars(*, detail: bool = False, transient: bool = False) -> Progress:
    """Bars of one line each: what it is, how far, since when, and its field `detail` if wanted."""
    out = console(stderr=True)
    # The detail gets what the others leave, and is cut off there.
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
