"""Progress of stages on stderr: a bar in a terminal, a line for each stage elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.progress import Progress as Bar
from rich.progress import TaskID

from quantchat.console.console import console
from quantchat.console.progress_bars import bars
from quantchat.text import one_line
from quantchat.wire.messages import Progress


@contextlib.contextmanager
def stage_display() -> Iterator[Callable[[Progress], None]]:
    """Show the stage that is told of, for as long as the context lasts; stdout is left alone."""
    if not console(stderr=True).is_terminal:
        yield _Lines()
        return
    with bars(detail=True) as bar:
        display = _Bars(bar)
        yield display
        display.end()


class _Bars:
    """A bar for each stage; those that are over stay, with the time they took."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._stage = ""
        self._task: TaskID | None = None

    def __call__(self, told: Progress) -> None:
        if self._task is None or told.stage != self._stage:
            self.end()
            self._stage = told.stage
            self._task = self._bar.add_task(one_line(told.stage), total=None, detail="")
        self._bar.update(
            self._task,
            total=told.total or None,
            completed=told.done,
            detail=one_line(told.detail),
        )

    def end(self) -> None:
        """The stage under way is over."""
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
