"""Work on the pair that takes its time: progress, then the result in its place."""

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

PATIENT_S = 5.0
"""How long a worker has to stop before a second Esc ends it: loading it again takes its time."""


class ProgressScreen(ModalScreen[None]):
    """Begins `work` when it is shown. Esc stops it, and once it is over closes."""

    WHAT: ClassVar[str]
    KEYS: ClassVar[str]
    """What Esc does while it goes on."""

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
        self._stopped_s: float | None = None
        """When the work was asked to stop, by the monotonic clock."""

    def compose(self) -> ComposeResult:
        """Progress; the result takes its place."""
        with Dialog(self.WHAT, self.KEYS), VerticalScroll():
            yield Static(id="step")
            yield ProgressBar(show_eta=True)
            yield Static(id="result")

    def on_mount(self) -> None:
        """Begin."""
        self.run_worker(self._until_taken_down())
        self.query_one(VerticalScroll).focus()

    async def _until_taken_down(self) -> None:
        """Do the work; what it wants to show after the screen was taken down shows nothing."""
        try:
            await self.work()
        except NoMatches:
            if self.query("#step"):
                raise

    async def work(self) -> None:
        """Do it, telling `step`, and call `end`."""
        raise NotImplementedError

    def stop(self) -> None:
        """Have the work end soon."""
        raise NotImplementedError

    def end_now(self) -> None:
        """End the work, and with it a worker that does not stop."""
        raise NotImplementedError

    def action_leave(self) -> None:
        """Stop while it goes on; end what has not stopped a while later; close afterwards."""
        if self.over:
            self.dismiss(None)
        elif self._stopped_s is None:
            self._stopped_s = time.monotonic()
            self.stop()
        elif time.monotonic() - self._stopped_s > PATIENT_S:
            self.end_now()

    def step(self, done: int, total: int, detail: str) -> None:
        """Show how far it is."""
        self.say(quiet(detail))
        self.query_one(ProgressBar).update(total=total, progress=done)

    def say(self, text: Content) -> None:
        """Show what it is at, or what came of it."""
        self.query_one("#step", Static).update(text)

    def end(self, result: RenderableType | None = None) -> None:
        """It is over, with `result` if there is one."""
        self.over = True
        self.query_one(Dialog).border_subtitle = SCROLLS_AND_CLOSES
        self.query_one(ProgressBar).display = False
        if result is not None:
            self.query_one("#result", Static).update(result)
