"""What Textual 8.2.8 leaves to its users, each with the reason and when it can go.

Read again whenever the pin in pyproject.toml moves.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, cast

from rich.segment import Segment
from textual import _ansi_sequences
from textual.app import App
from textual.color import Color
from textual.filter import LineFilter
from textual.keys import Keys

from quantchat.text import neutralise


def tell_alt_enter() -> None:
    """Make ESC CR mean Ctrl+J, so that Alt+Enter starts a line and does not send.

    Textual's parser drops the Alt of sequences it does not know. ESC CR is what terminals without
    the kitty keyboard protocol send for Alt+Enter, and what many are set up to send for
    Shift+Enter. Can go when `_xterm_parser` reports `alt+enter` for it.
    """
    sequences = cast("MutableMapping[str, Any]", _ansi_sequences.ANSI_SEQUENCES_KEYS)
    sequences["\x1b\r"] = (Keys.ControlJ,)


XTERM_SHIFT_ENTER = "shift+\r"
"""The name Textual gives to xterm's `CSI 27;2;13~`, which tmux sends with `extended-keys on`.
Can go when the parser names it `shift+enter`, as it does for kitty's `CSI 13;2u`."""


class ControlGuard(LineFilter):
    """Takes control characters out of each line drawn: the last guard, after `neutralise`.

    Textual passes them on: a model's ESC would reach the terminal through any widget. They are
    removed and not marked here, since a mark would be wider than the layout has reckoned with.
    The address of a link, which Textual would send as an OSC 8, goes too: nothing here needs one.
    Can go when Textual strips them itself.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return `segments`, each without controls; all but always the very same list."""
        if all(map(_harmless, segments)):
            return segments
        return [
            Segment(
                "".join(c for c in text if neutralise(c) == c),
                style.update_link(None) if style and style.link else style,
                control,
            )
            for text, style, control in segments
        ]


def _harmless(segment: Segment) -> bool:
    linked = segment.style is not None and segment.style.link
    return not linked and neutralise(segment.text) == segment.text


def write_to_terminal(app: App[Any]) -> Callable[[str], None]:
    """What writes an escape sequence to the terminal of `app`, in turn with its frames.

    `App.copy_to_clipboard` does so through the same driver, but knows no multiplexer. Can go when
    it wraps OSC 52 for tmux and GNU screen.
    """

    def write(sequence: str) -> None:
        driver = app._driver
        if driver is not None:
            driver.write(sequence)

    return write
