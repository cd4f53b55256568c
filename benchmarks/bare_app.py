"""A minimal Textual app: `startup.py` compares the time to its first frame with quantchat's."""

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
