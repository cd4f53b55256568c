"""The smallest Textual app, one line of text: `startup.py` compares its first frame with ours."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Static


class Bare(App[None]):
    """One line of text."""

    def compose(self) -> ComposeResult:
        """Yield the line that `startup.py` waits for."""
        yield Static("the first frame")


if __name__ == "__main__":
    Bare().run()
