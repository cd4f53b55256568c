"""The least that Textual can show: one line. What `startup.py` measures beside our first frame."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Static


class Bare(App[None]):
    """One line of text."""

    def compose(self) -> ComposeResult:
        """The line that is waited for."""
        yield Static("the first frame")


if __name__ == "__main__":
    Bare().run()
