"""Progress of a job's stages on stderr: a bar in a terminal, elsewhere a line for each stage."""

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
    """Yield a function that shows its argument, the progress of a job's stage, on stderr.

    Progress is drawn only within this context.
    """
    if not console(stderr=True).is_terminal:
        yield _Lines()
        return
    with bars(detail=True) as bar:
        display = _Bars(bar)
        yield display
        display.end()


class _Bars:
    """Shows a bar for each stage. The bars of finished stages stay, with the time they took."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._stage = ""
        self._task: TaskID | None = None

    def __call__(self, progress: Progress) -> None:
        if self._task is None or progress.stage != self._stage:
            self.end()
            self._stage = progress.stage
            self._task = self._bar.add_task(one_line(progress.stage), total=None, detail="")
        self._bar.update(
            self._task,
            total=progress.total or None,
            completed=progress.done,
            detail=one_line(progress.detail),
        )

    def end(self) -> None:
        """Mark the current stage as finished."""
        if self._task is not None:
            total = self._bar.tasks[self._task].total or 1
            self._bar.update(self._task, total=total, completed=total, detail="")


class _Lines:
    """Prints a line for each new stage, and for each counted step of a stage."""

    def __init__(self) -> None:
        self._last = ("", -1)

    def __call__(self, progress: Progress) -> None:
        at = (progress.stage, progress.done)
        if at == self._last:
            return
        self._last = at
        step = (
            f" {progress.done} of {progress.total}"
            if 0 < progress.total <= 9_999 and progress.done
            else ""
        )
        detail = f": {progress.detail}" if step and progress.detail else ""
        print(one_line(f"{progress.stage}{step}{detail}"), file=sys.stderr, flush=True)  # noqa: T201
