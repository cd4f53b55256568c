"""Progress of a measurement on stderr: bars if stderr is a terminal, otherwise plain lines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

from rich.progress import Progress, TaskID

from quantchat.console.console import console
from quantchat.console.progress_bars import bars
from quantchat.session.live_variant import LiveVariant, State
from quantchat.text import one_line
from quantchat.wire import messages


class Display(Protocol):
    """Shows progress; the code that measures calls these methods."""

    def on_variant(self, variant: LiveVariant) -> None:
        """Show the stage of `variant` while it is prepared and loaded."""

    def on_model(self, label: str, stage: messages.Progress | None) -> None:
        """Show the `stage` of the model `label`; None means that the model is done."""

    def on_step(self, done: int, total: int, detail: str) -> None:
        """Show that `done` of `total` steps are finished; `detail` says what runs now."""


@contextlib.contextmanager
def progress_display() -> Iterator[Display]:
    """Show progress on stderr within this context."""
    if not console(stderr=True).is_terminal:
        yield _Lines()
        return
    with bars(transient=True) as progress:
        yield _Bars(progress)


def _stage(variant: LiveVariant) -> messages.Progress | None:
    """Return the stage of a variant that is being prepared or loaded, else None."""
    if variant.state not in (State.PREPARING, State.LOADING):
        return None
    return variant.progress or messages.Progress(variant.state.value)


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def _task(self, key: str) -> TaskID:
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(one_line(key), total=None)
        return self._tasks[key]

    def on_variant(self, variant: LiveVariant) -> None:
        self.on_model(variant.label, _stage(variant))

    def on_model(self, label: str, stage: messages.Progress | None) -> None:
        task = self._task(label)
        if stage is None:
            self._progress.update(task, visible=False)
            return
        self._progress.update(
            task,
            visible=True,
            description=one_line(f"{label}: {stage.stage} {stage.detail}".rstrip()),
            total=stage.total or None,
            completed=stage.done,
        )

    def on_step(self, done: int, total: int, detail: str) -> None:
        task = self._task("rounds")
        self._progress.update(task, description=one_line(detail), completed=done, total=total)


class _Lines:
    """Prints a line for each new stage and each step, but not for progress within a stage."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def on_variant(self, variant: LiveVariant) -> None:
        if variant.state is State.READY:
            self._say(variant.label, variant.state.value)
        elif (stage := _stage(variant)) is not None:
            self._say(variant.label, stage.stage)

    def on_model(self, label: str, stage: messages.Progress | None) -> None:
        self._say(label, "done" if stage is None else stage.stage)

    def on_step(self, done: int, total: int, detail: str) -> None:
        self._say("rounds", f"{detail} ({done} of {total})")

    def _say(self, key: str, text: str) -> None:
        if self._last.get(key) != text:
            self._last[key] = text
            print(one_line(f"{key}: {text}"), file=sys.stderr, flush=True)  # noqa: T201
