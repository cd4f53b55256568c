"""Search in the conversation: type, choose a place, go there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.text_layout import quiet, untrusted
from quantchat.session.conversation import Conversation
from quantchat.text import one_line

MAX_FOUND = 200
_BEFORE, _AFTER = 24, 80
"""Characters around a match that are shown."""


@dataclass(frozen=True)
class SearchHit:
    """A place in the conversation: the turn's index, who wrote it, and the text there.

    `text` is the text that was found, `before` and `after` are the characters around it.
    """

    turn: int
    who: str
    """A variant's label; empty for the prompt."""
    text: str
    before: str
    after: str


class SearchScreen(ModalScreen["SearchHit | None"]):
    """Returns the chosen place, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "dismiss", "Close"),
        ("down", "list", "Places"),
    ]
    DEFAULT_CSS = """
    SearchScreen {
        .dialog { width: 96%; max-width: 120; height: auto; max-height: 90%; padding: 0 1; }
        Input { border: none; height: 1; padding: 0 1; background: $panel; }
        Input:focus { border: none; }
        OptionList { height: auto; max-height: 16; }
    }
    """

    def __init__(self, conversation: Conversation) -> None:
        super().__init__()
        self._conversation = conversation
        self._hits: list[SearchHit] = []

    def compose(self) -> ComposeResult:
        """Lay out the box and the list of places."""
        with Dialog("Search the conversation", "Enter: go there · ↓: choose · Esc: close"):
            yield Input(placeholder="text")
            yield OptionList()

    @on(Input.Changed)
    def _search(self, event: Input.Changed) -> None:
        self._hits = search(self._conversation, event.value)
        places = self.query_one(OptionList)
        places.clear_options()
        if self._hits:
            places.add_options(map(_option, self._hits))
            places.highlighted = 0
        elif event.value:
            places.add_option(Option(quiet("not found"), disabled=True))

    @on(Input.Submitted)
    def _first(self) -> None:
        place = self.query_one(OptionList).highlighted
        if self._hits and place is not None:
            self.dismiss(self._hits[place])

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._hits[event.option_index])

    def action_list(self) -> None:
        """Move to the list of places."""
        self.query_one(OptionList).focus()


def search(conversation: Conversation, words: str) -> list[SearchHit]:
    """Return the places where `words` occur, ignoring case, the newest turn first.

    At most `MAX_FOUND` places are returned, and only the first one in each prompt or answer.
    """
    wanted = words.strip()
    found: list[SearchHit] = []
    if not wanted:
        return found
    pattern = re.compile(re.escape(wanted), re.IGNORECASE)
    for index, turn in reversed(list(enumerate(conversation.turns))):
        texts = [("", turn.prompt), *((a.variant, a.text) for a in turn.answers.values())]
        for who, text in texts:
            if match := pattern.search(text):
                start, end = match.span()
                before, after = text[max(0, start - _BEFORE) : start], text[end : end + _AFTER]
                found.append(SearchHit(index, who, match.group(), before, after))
    return found[:MAX_FOUND]


def _option(place: SearchHit) -> Option:
    who = place.who or "prompt"
    around = (
        untrusted(place.before, "$quiet")
        + Content.styled(one_line(place.text), "bold $primary")
        + untrusted(place.after, "$quiet")
    )
    return Option(quiet(f"{place.turn + 1}  ") + untrusted(who, "bold") + "  " + around)
