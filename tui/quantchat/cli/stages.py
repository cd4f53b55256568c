"""Progress of stages on stderr: a bar in a terminal, a line for each stage elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import (
    Progress as Bar,
)
from rich.table import Column

from quantchat.cli.console import console
from quantchat.text import one_line
from quantchat.worker.protocol import Progress


@contextlib.contextmanager
def stage_display() -> Iterator[Callable[[Progress], None]]:
    """Show the stage that is told of, for as long as the context lasts; stdout is left alone."""
    out = console(stderr=True)
    if not out.is_terminal:
        yield _Lines()
        return
    # The detail gets what the others leave, and is cut off there.
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False, table_column=rest),
    )
    with Bar(*columns, console=out, refresh_per_second=5, expand=True) as bar:
        yield _Bars(bar)


class _Bars:
    """A bar for each stage; those that are over stay, with the time they took."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._stage = ""
        self._task: TaskID | None = None

    def __call__(self, told: Progress) -> None:
        if self._task is None or told.stage != self._stage:
            self._end()
            self._stage = told.stage
            self._task = self._bar.add_task(one_line(told.stage), total=None, detail="")
        self._bar.update(
            self._task,
            total=told.total or None,
            completed=told.done,
            detail=one_line(told.detail),
        )

    def _end(self) -> None:
        if self._task is not None:
            total = self._bar.tasks[self._task].total or 1
            self._bar.update(self._task, total=total, completed=total, detail="")


class _Lines:
    """A line for each new stage, and for each step of one that can be counted."""

    def __init__(self) -> None:
        self._last = ("", -1)

    def __call__(self, told: Progress) -> None:
        at = (told.stage, told.done)
        if at == self._last:
            return
        self._last = at
        step = f" {told.done} of {told.total}" if 0 < told.total <= 9_999 and told.done else ""
        detail = f": {told.detail}" if step and told.detail else ""
        print(one_line(f"{told.stage}{step}{detail}"), file=sys.stderr, flush=True)  # noqa: T201
