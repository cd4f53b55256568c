"""The frame of what opens over a screen."""

from __future__ import annotations

from textual.containers import Vertical

SCROLLS_AND_CLOSES = "↑↓ scroll · Esc closes"


class Dialog(Vertical):
    """Says what it is above, and its keys below."""

    def __init__(self, title: str = "", keys: str = SCROLLS_AND_CLOSES) -> None:
        super().__init__(classes="dialog")
        self.border_title = title
        self.border_subtitle = keys
