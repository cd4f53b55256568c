"""What is pasted: text, whatever is in it, and no more of it than a text box can take.

Read again whenever the pin of Textual in pyproject.toml moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from textual._xterm_parser import BRACKETED_PASTE_END, BRACKETED_PASTE_START, XTermParser
from textual.drivers import linux_driver
from textual.events import Paste
from textual.message import Message
from textual.widgets import Input, TextArea

from quantchat.text import neutralise

LONGEST = 50_000
"""Characters that a text box takes. Textual wraps all of a text at once, and its last paragraph
again with each key: 1.25 MB would stop the screen for seconds."""
MOST_LINES = 2_500
"""Lines that it takes: each costs more than its characters, in the box and where it is shown."""


class PasteParser(XTermParser):
    """Takes what is pasted for text, whatever is in it and however it is cut.

    Textual looks for escape sequences in it too: an ESC begins one, what it does not know comes out
    as keys, and where the end of the paste comes in two pieces on a busy machine or a slow line, it
    is not seen, and all keys that follow are pasted. It also looks at each character by itself,
    which takes seconds for a megabyte, and takes each NUL out. Can go when the parser reads nothing
    but the end in a paste.
    """

    _seen = ""
    """The end of what was read as keys: the start of a paste may come in two pieces."""
    _pasted: str | None = None
    """What was pasted until now; None where nothing is being pasted."""

    def feed(self, data: str) -> Iterable[Message]:
        """As the parser's own: the messages that `data`, the next characters read, give."""
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
        known = len(self._seen)
        keys, start, text = (self._seen + data).partition(BRACKETED_PASTE_START)
        yield from super().feed((keys + start)[known:])
        self._seen = "" if start else keys[1 - len(BRACKETED_PASTE_START) :]
        if start:
            self._pasted = ""
            if text:
                yield from self.feed(text)

    def tick(self) -> Iterable[Message]:
        """As the parser's own: what became of a sequence that did not go on in time."""
        for message in super().tick():
            self._seen = ""
            yield message


def take_pastes_for_text() -> None:
    """Have the driver read the terminal with `PasteParser`."""
    linux_driver.XTermParser = PasteParser  # type: ignore[attr-defined]


def take_pastes_whole() -> None:
    """Have a text box take all of a paste, neutral, or say why it takes none of it.

    A part of it would be taken for the whole. Textual knows no limit, and takes the first line
    alone in a box of one line, in silence.
    """
    for kind in (TextArea, Input):
        if not getattr(kind._on_paste, "whole", False):
            kind._on_paste = _whole(kind._on_paste)  # type: ignore[method-assign,assignment]


def _whole(paste: Callable[[Any, Paste], Any]) -> Callable[[Any, Paste], Any]:
    async def on_paste(box: TextArea | Input, event: Paste) -> None:
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        if isinstance(box, Input):
            text = text.strip("\n")
        event.text = text if len(text) > LONGEST else neutralise(text)
        refused = _refused(box, event.text)
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


def _refused(box: TextArea | Input, text: str) -> str:
    """Why `box` has no room for `text` in place of what is selected; empty where it has."""
    there, most = (box.value, 1) if isinstance(box, Input) else (box.text, MOST_LINES)
    lines = most - there.count("\n") + box.selected_text.count("\n")
    characters = LONGEST - len(there) + len(box.selected_text)
    if len(text) > characters:
        why = f"{len(text):,} characters: there is room for {max(0, characters):,} of {LONGEST:,}"
    elif text.count("\n") >= lines:
        why = f"{text.count(chr(10)) + 1:,} lines: there is room for {max(1, lines):,} of {most:,}"
    else:
        return ""
    if box.id != "prompt":
        return why
    return f'{why}. `quantchat run --prompts FILE` sends a longer prompt: JSONL, {{"prompt": "…"}}'
