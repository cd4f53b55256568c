"""The line that says whose answers the two sides continue."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from quantchat.app.commands import command
from quantchat.app.widgets.text_layout import SIDES, quiet, untrusted
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Conversation


class HistoryLine(Widget):
    """Says whose answers the newest turn continued.

    Hidden in the first turn, and while each side continues its own answers and these are equal.
    """

    DEFAULT_CSS = """
    HistoryLine {
        display: none; height: 1; padding: 0 1; background: $panel; text-wrap: nowrap;
        &.-known { display: block; }
    }
    """

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self._comparison = comparison
        self._shown = Content()

    def observe(self) -> None:
        """Update the line for the newest turn; draw it only if its text has changed."""
        shown = self._text()
        if shown != self._shown:
            self._shown = shown
            self.set_class(bool(shown), "-known")
            self.refresh()

    def _text(self) -> Content:
        comparison = self._comparison
        turn = comparison.last_turn
        if turn is None:
            return Content()
        labels = [variant.label for variant in comparison.sides]
        if turn.history_of and len(comparison.conversation.turns) > 1:
            at = labels.index(turn.history_of) if turn.history_of in labels else None
            style = "" if at is None else SIDES[at]
            return quiet("both sides continue the answers of ") + untrusted(turn.history_of, style)
        if not histories_differ(comparison.conversation, labels[0], labels[1]):
            return Content()
        return quiet(
            "each side continues its own answers, which differ"
            f" · {command('history').key} one history for both"
        )

    def render(self) -> Content:
        """Return the line, cut at the width."""
        return self._shown.truncate(self.size.width, ellipsis=True)


def histories_differ(conversation: Conversation, first: str, second: str) -> bool:
    """Return whether the two variants were sent different chats in the newest turn."""
    turn = conversation.turns[-1]
    if not {first, second} <= turn.answers.keys():
        return False
    chats = [conversation.messages_for(label, turn) for label in (first, second)]
    return chats[0] != chats[1]


def history_text(comparison: Comparison) -> str:
    """Return a clause that says whose answers the next turn continues."""
    if comparison.history == "own":
        return "each side continues its own answers"
    side = comparison.sides[0 if comparison.history == "left" else 1]
    return f"both sides continue the answers of {side.label}"
