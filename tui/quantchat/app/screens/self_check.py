"""A against A on the screen: progress, then the table."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import ProgressBar, Static

from quantchat.app.widgets.lines import outside, quiet
from quantchat.bench.comparison import Comparison
from quantchat.bench.self_check import SelfCheck
from quantchat.report import self_check as report


class SelfCheckScreen(ModalScreen[None]):
    """Checks the pair of `comparison` on `prompts`. Esc stops, and at the end closes."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q", "leave", "Stop, then close")]
    DEFAULT_CSS = """
    SelfCheckScreen {
        .dialog { padding: 0 1; width: 100%; max-width: 110; }
        VerticalScroll { height: auto; max-height: 100%; }
        ProgressBar { margin: 1 0; width: 100%; }
        ProgressBar Bar { width: 1fr; }
        Static { height: auto; }
    }
    """

    def __init__(self, comparison: Comparison, prompts: tuple[str, ...]) -> None:
        super().__init__()
        self._comparison = comparison
        self._check = SelfCheck(comparison, prompts, self._step)
        self._over = False

    def compose(self) -> ComposeResult:
        """Progress; the table comes below."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Each variant against itself"
            dialog.border_subtitle = "Esc stops; what was found is kept"
            with VerticalScroll():
                yield Static(id="step")
                yield ProgressBar(show_eta=True)
                yield Static(id="result")

    def on_mount(self) -> None:
        """Begin."""
        self.run_worker(self._run())
        self.query_one(VerticalScroll).focus()

    def action_leave(self) -> None:
        """Stop while it checks, close afterwards."""
        if self._over:
            self.dismiss(None)
        else:
            self._check.stop()

    async def _run(self) -> None:
        try:
            with self._comparison.occupied():
                found = await self._check.run()
        except ValueError as error:  # a variant ended meanwhile
            self.query_one("#step", Static).update(outside(str(error), "$error"))
        else:
            self.query_one("#result", Static).update(report.render(found))
        self._over = True
        self.query_one(ProgressBar).display = False
        self.query_one(".dialog", Vertical).border_subtitle = "↑↓ scroll · Esc closes"

    def _step(self, done: int, total: int, detail: str) -> None:
        self.query_one("#step", Static).update(quiet(detail))
        self.query_one(ProgressBar).update(total=total, progress=done)
