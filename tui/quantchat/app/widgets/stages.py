"""The list of loading stages of a variant, each with its progress."""

from __future__ import annotations

import time
from dataclasses import dataclass

from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from quantchat.app.widgets.strip_chart import bar
from quantchat.app.widgets.text_layout import quiet, spread, untrusted
from quantchat.document import figures
from quantchat.session.live_variant import LiveVariant, State
from quantchat.wire.messages import Progress

_BAR = 20


@dataclass
class _Stage:
    progress: Progress
    began_s: float
    ended_s: float | None = None


class Stages(Widget):
    """Shows the stages up to the current one; hidden when the variant is loaded."""

    DEFAULT_CSS = """
    Stages { height: auto; padding: 0 1; margin-bottom: 1; text-wrap: nowrap; display: none; }
    Stages.-busy { display: block; }
    """

    def __init__(self, variant: LiveVariant) -> None:
        super().__init__()
        self._variant = variant
        self._stages: list[_Stage] = []
        self._state = State.IDLE

    def observe(self) -> None:
        """Read the variant's state and stage."""
        state, progress = self._variant.state, self._variant.progress
        if state is State.READY or (state is State.PREPARING and self._state is not state):
            self._stages.clear()
        if state is not self._state and state is State.LOADING:
            # The time until the worker's first message is a stage too.
            progress = progress if self._is_new(progress) else Progress("starting the worker")
        self._state = state
        busy = state in (State.PREPARING, State.LOADING)
        if progress is not None and busy:
            self._note(progress)
        self.set_class(busy or (state is State.FAILED and bool(self._stages)), "-busy")
        self.refresh(layout=True)

    def tick(self) -> None:
        """Redraw the elapsed time of the current stage."""
        if self.display:
            self.refresh()

    def _is_new(self, progress: Progress | None) -> bool:
        return progress is not None and not (
            self._stages and self._stages[-1].progress.stage == progress.stage
        )

    def _note(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._is_new(progress):
            if self._stages:
                self._stages[-1].ended_s = now
            self._stages.append(_Stage(progress, now))
        else:
            self._stages[-1].progress = progress

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return one line for each stage, and one for the progress of the current stage."""
        del container, viewport
        return max(1, sum(len(self._lines(stage, width)) for stage in self._stages))

    def render(self) -> Content:
        """Return the stages, one below the other."""
        lines = [line for stage in self._stages for line in self._lines(stage, self.size.width)]
        return Content("\n").join(lines or [quiet("preparing")])

    def _lines(self, stage: _Stage, width: int) -> list[Content]:
        progress = stage.progress
        current = stage is self._stages[-1]
        failed = current and self._state is State.FAILED
        took = figures.seconds((stage.ended_s or time.monotonic()) - stage.began_s)
        if not current or failed:
            sign = ("✖ ", "$error") if failed else ("✓ ", "$success")
            name = Content.assemble(sign) + untrusted(progress.stage, "$quiet")
            return [spread(name, quiet("" if failed else took), width)]
        name = Content.styled("▸ ", "$warning") + untrusted(progress_text(progress), "bold")
        below = quiet("  ")
        if progress.total > 0:
            share = progress.done / progress.total
            cells = min(_BAR, width // 2)
            below = Content.assemble(
                below, (bar(share, cells), "$warning on $panel"), f" {100 * share:.0f} %  "
            )
        below = (below + untrusted(progress.detail, "$quiet")).truncate(width, ellipsis=True)
        return [spread(name, quiet(took), width), *([below] if below.plain.strip() else [])]


def progress_text(progress: Progress) -> str:
    """Return for example `quantizing layer 7 of 30`.

    For totals above 9,999, which are bytes, return only the stage.
    """
    if 0 < progress.total <= 9_999:
        return f"{progress.stage} {progress.done} of {progress.total}"
    return progress.stage
