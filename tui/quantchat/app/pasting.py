"""Pasting into text boxes, and the limits on their length for pasted and typed text.

A paste is taken as plain text, even if it contains escape sequences. If it is too long, it is
rejected as a whole.

This module patches Textual: review it whenever the Textual version in pyproject.toml changes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from textual._xterm_parser import BRACKETED_PASTE_END, BRACKETED_PASTE_START, XTermParser
from textual.document._document import EditResult, Location
from textual.drivers import linux_driver
from textual.events import Paste
from textual.message import Message
from textual.widgets import Input, TextArea

from quantchat.text import neutralise

MAX_CHARACTERS = 50_000
"""Most characters in a text box. Textual wraps the whole text after a paste and the last paragraph
after each key press: 1.25 MB would block the screen for seconds."""
MAX_LINES = 2_500
"""Most lines in a text box: many short lines take longer to draw than the same number of characters
in a few long lines."""


class PasteParser(XTermParser):
    """Reads everything between the start and the end of a bracketed paste as text.

    Textual's parser looks for escape sequences inside a paste: an ESC starts one, and unknown
    sequences become keys. If the end marker arrives in two reads (busy machine, slow line), the
    parser misses it and takes all following keys as part of the paste. The parser also handles each
    character by itself, which takes seconds for a megabyte, and drops NUL. Remove this class when
    Textual's parser looks for nothing but the end marker inside a paste.
    """

    _recent_keys = ""
    """The last characters read as keys: the start marker may arrive in two reads."""
    _pasted: str | None = None
    """The paste so far; None outside a paste."""

    def feed(self, data: str) -> Iterable[Message]:
        """Return the messages for `data`, the next characters read (see `XTermParser.feed`)."""
        if self._pasted is not None and data:
            begin = max(0, len(self._pasted) - len(BRACKETED_PASTE_END) + 1)
            self._pasted += data
            end = self._pasted.find(BRACKETED_PASTE_END, begin)
            if end < 0:
                return
            text, data = self._pasted[:end], self._pasted[end + len(BRACKETED_PASTE_END) :]
            self._pasted = None
            for message in super().feed(BRACKETED_PASTE_END):
                yield Paste(text) if isinstance(message, Paste) else message
            if not data:
                return
        known = len(self._recent_keys)
        keys, start, text = (self._recent_keys + data).partition(BRACKETED_PASTE_START)
        yield from super().feed((keys + start)[known:])
        self._recent_keys = "" if start else keys[1 - len(BRACKETED_PASTE_START) :]
        if start:
            self._pasted = ""
            if text:
                yield from self.feed(text)

    def tick(self) -> Iterable[Message]:
        """Return the messages of an unfinished escape sequence (see `XTermParser.tick`)."""
        for message in super().tick():
            self._recent_keys = ""
            yield message


def read_pastes_as_text() -> None:
    """Make Textual's driver use `PasteParser`. A second call changes nothing."""
    linux_driver.XTermParser = PasteParser  # type: ignore[attr-defined]


def take_or_reject_whole_pastes() -> None:
    """Make text boxes take a paste as a whole, without control characters, or reject it.

    If only a part of a paste were taken, the user might not notice. Textual has no limit, and its
    one-line box silently takes only the first line. A second call changes nothing.
    """
    for kind in (TextArea, Input):
        if not getattr(kind._on_paste, "whole", False):
            kind._on_paste = _all_or_nothing(kind._on_paste)  # type: ignore[method-assign,assignment]


def _all_or_nothing(paste: Callable[[Any, Paste], Any]) -> Callable[[Any, Paste], Any]:
    async def on_paste(box: TextArea | Input, event: Paste) -> None:
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        if isinstance(box, Input):
            text = text.strip("\n")
        event.text = text if len(text) > MAX_CHARACTERS else neutralise(text)
        refused = _why_refused(box, event.text)
        if refused:
            event.stop()
            event.prevent_default()
            box.notify(refused, title="Not pasted", severity="warning", timeout=20, markup=False)
            return
        result = paste(box, event)
        if result is not None:
            await result

    on_paste.whole = True  # type: ignore[attr-defined]
    return on_paste


def limit_typing() -> None:
    """Make multi-line text boxes ignore keys that would exceed `MAX_CHARACTERS` or `MAX_LINES`.

    The first ignored key shows a notification; the next notification comes only after a key has
    been accepted in between. A second call changes nothing.
    """
    if getattr(TextArea._replace_via_keyboard, "limited", False):
        return
    replace = TextArea._replace_via_keyboard
    notified: weakref.WeakSet[TextArea] = weakref.WeakSet()

    def limited(box: TextArea, insert: str, start: Location, end: Location) -> EditResult | None:
        room, lines = _space_left(box, box.get_text_range(start, end))
        if len(insert) <= room and insert.count("\n") < lines:
            notified.discard(box)
            return replace(box, insert, start, end)
        if box not in notified:  # a key that is held down comes thirty times a second
            notified.add(box)
            what = (
                f"{MAX_CHARACTERS:,} characters" if len(insert) > room else f"{MAX_LINES:,} lines"
            )
            box.notify(
                _with_hint(box, f"The box is full: it holds {what}."),
                title="Not typed",
                severity="warning",
                timeout=20,
                markup=False,
            )
        return None

    limited.limited = True  # type: ignore[attr-defined]
    TextArea._replace_via_keyboard = limited  # type: ignore[method-assign,assignment]


def _space_left(box: TextArea | Input, replaced: str) -> tuple[int, int]:
    """Return how many characters and lines fit in `box` in place of `replaced`."""
    text, max_lines = (box.value, 1) if isinstance(box, Input) else (box.text, MAX_LINES)
    return (
        MAX_CHARACTERS - len(text) + len(replaced),
        max_lines - text.count("\n") + replaced.count("\n"),
    )


def _with_hint(box: TextArea | Input, why: str) -> str:
    """Return `why`; for the prompt box also say how to send longer prompts."""
    if box.id != "prompt":
        return why
    return (
        f'{why} Send longer prompts with `quantchat run --prompts FILE` (JSONL, {{"prompt": "…"}}).'
    )


def _why_refused(box: TextArea | Input, text: str) -> str:
    """Return why `text` does not fit in `box` in place of the selection; empty if it fits."""
    most = 1 if isinstance(box, Input) else MAX_LINES
    characters, lines = _space_left(box, box.selected_text)
    if len(text) > characters:
        why = (
            f"The paste has {len(text):,} characters; there is room for {max(0, characters):,} of "
            f"{MAX_CHARACTERS:,}."
        )
    elif text.count("\n") >= lines:
        why = (
            f"The paste has {text.count(chr(10)) + 1:,} lines; there is room for "
            f"{max(1, lines):,} of {most:,}."
        )
    else:
        return ""
    return _with_hint(box, why)
