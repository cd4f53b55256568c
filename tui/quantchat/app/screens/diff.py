"""The word diff of the last two answers."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.text_layout import SIDES, quiet, untrusted
from quantchat.daemon_thread import to_daemon_thread
from quantchat.session.conversation import Answer
from quantchat.statistics.word_diff import word_diff
from quantchat.text import neutralise

_STYLES = tuple(f"reverse {side}" for side in SIDES)


class DiffScreen(ModalScreen[None]):
    """Shows the words of both answers, and marks those that only one of them has."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q", "dismiss", "Close")]
    DEFAULT_CSS = """
    DiffScreen {
        .dialog { padding: 0 1; width: 96%; max-width: 140; height: 92%; }
        Static { height: auto; }
        #legend { margin-bottom: 1; }
    }
    """

    def __init__(self, left: Answer, right: Answer) -> None:
        super().__init__()
        self._answers = (left, right)

    def compose(self) -> ComposeResult:
        """Lay out the legend and the text."""
        with Dialog("Difference of the last two answers, word by word"), VerticalScroll():
            yield Static(self._legend(), id="legend")
            yield Static(quiet("comparing"), id="diff")

    def on_mount(self) -> None:
        """Compare, which can take seconds for long answers."""
        self.query_one(VerticalScroll).focus()
        self.run_worker(self._compare(), exit_on_error=False)

    async def _compare(self) -> None:
        texts = [neutralise(answer.text) for answer in self._answers]
        self.query_one("#diff", Static).update(await to_daemon_thread(lambda: diff_text(*texts)))

    def _legend(self) -> Content:
        names = [
            Content.styled(" ", style) + " only " + untrusted(answer.variant, side)
            for answer, style, side in zip(self._answers, _STYLES, SIDES, strict=True)
        ]
        return Content("   ").join(names)


def diff_text(first: str, second: str) -> Content:
    """Merge both texts; words that only one of them has are in the colour of its side."""
    text: list[Content] = []
    for part in word_diff(first, second):
        if part.same:
            text.append(Content(part.first))
        else:
            text += [_marked(part.first, _STYLES[0]), _marked(part.second, _STYLES[1])]
    return Content("").join(text) or quiet("both answers are empty")


def _marked(part: str, style: str) -> Content:
    """Return `part` in `style`, except the white space at its ends."""
    words = part.strip()
    begin = part.find(words)
    return (
        Content(part[:begin]) + Content.styled(words, style) + Content(part[begin + len(words) :])
    )
