"""Base class of screens that run a long task: first progress, then the result."""

from __future__ import annotations

import time
from typing import ClassVar

from rich.console import RenderableType
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.widgets import ProgressBar, Static

from quantchat.app.widgets.dialog import SCROLLS_AND_CLOSES, Dialog
from quantchat.app.widgets.text_layout import quiet

STOP_WAIT_S = 5.0
"""Seconds that a worker gets to stop. After that, a second Esc ends the worker, and the variant
must be reloaded."""


class ProgressScreen(ModalScreen[None]):
    """Runs `work` when the screen is shown.

    Esc stops the work; when the work is over, Esc closes the screen.
    """

    WHAT: ClassVar[str]
    """The title of the screen."""
    KEYS: ClassVar[str]
    """What Esc does while the work runs."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q", "leave", "Stop, then close")]
    DEFAULT_CSS = """
    ProgressScreen {
        .dialog { padding: 0 1; width: 100%; max-width: 110; }
        VerticalScroll { height: auto; max-height: 100%; }
        ProgressBar { margin: 1 0; width: 100%; }
        ProgressBar Bar { width: 1fr; }
        Static { height: auto; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self.over = False
        """Whether the work is over."""
        self._stopped_s: float | None = None
        """When the user asked the work to stop, by the monotonic clock."""

    def compose(self) -> ComposeResult:
        """Lay out the progress and the empty result."""
        with Dialog(self.WHAT, self.KEYS), VerticalScroll():
            yield Static(id="step")
            yield ProgressBar(show_eta=True)
            yield Static(id="result")

    def on_mount(self) -> None:
        """Start the work."""
        self.run_worker(self._run_until_closed())
        self.query_one(VerticalScroll).focus()

    async def _run_until_closed(self) -> None:
        """Do the work; ignore its attempts to draw after the screen was closed."""
        try:
            await self.work()
        except NoMatches:
            if self.query("#step"):
                raise

    async def work(self) -> None:
        """Do the work: report progress with `step`, and call `end` when it is over."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ask the work to end soon."""
        raise NotImplementedError

    def end_now(self) -> None:
        """End the work, together with a worker that does not stop."""
        raise NotImplementedError

    def action_leave(self) -> None:
        """Stop the work at the first Esc, end it at a second one after `STOP_WAIT_S`.

        When the work is over, close the screen.
        """
        if self.over:
            self.dismiss(None)
        elif self._stopped_s is None:
            self._stopped_s = time.monotonic()
            self.stop()
        elif time.monotonic() - self._stopped_s > STOP_WAIT_S:
            self.end_now()

    def step(self, done: int, total: int, detail: str) -> None:
        """Show the progress, `done` of `total`, and what is being done."""
        self.say(quiet(detail))
        self.query_one(ProgressBar).update(total=total, progress=done)

    def say(self, text: Content) -> None:
        """Show `text` in the progress line."""
        self.query_one("#step", Static).update(text)

    def end(self, result: RenderableType | None = None) -> None:
        """Hide the progress bar and show `result`, if there is one."""
        self.over = True
        self.query_one(Dialog).border_subtitle = SCROLLS_AND_CLOSES
        self.query_one(ProgressBar).display = False
        if result is not None:
            self.query_one("#result", Static).update(result)
