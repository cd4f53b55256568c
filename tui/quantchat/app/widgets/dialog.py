"""The frame of a dialog."""

from __future__ import annotations

from textual.containers import Vertical

SCROLLS_AND_CLOSES = "↑↓: scroll · Esc: close"


class Dialog(Vertical):
    """Shows `title` in the upper border and `keys` in the lower one."""

    def __init__(self, title: str = "", keys: str = SCROLLS_AND_CLOSES) -> None:
        super().__init__(classes="dialog")
        self.border_title = title
        self.border_subtitle = keys
