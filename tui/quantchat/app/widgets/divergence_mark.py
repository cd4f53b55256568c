"""Marks the divergence in an answer: its first token that differs from the other answer.

Drawing Markdown drops characters of the source (asterisks, addresses of links) and adds others
(bullets, indents). So the token's place is found by matching the drawn text with the source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.content import Content

from quantchat.app.incremental_markdown import IncrementalMarkdown
from quantchat.app.plain_text import PlainText
from quantchat.session.conversation import Turn
from quantchat.session.teacher_forcing import greedy_divergence
from quantchat.text import neutralise

MARK_STYLE = "bold reverse"
"""Visible without colours and in every theme."""

_MAX_DROPPED = 300
"""Most characters of the source that drawing drops in one place, such as the address of a link. If
a drawn character does not occur within this distance in the source, drawing has added it."""

_SEARCHED_CHARACTERS = 20_000
"""Source characters, from the start of an answer, in which a divergence is marked. The search
starts over whenever lines change, so a longer reach would cost too much."""


@dataclass(frozen=True)
class Place:
    """Part of a drawn line: its characters from `first` up to, not including, `last`."""

    line: int
    first: int
    last: int


class DivergenceMark:
    """Finds, in drawn lines, where `variant`'s answer to `turn` diverges from the other answer."""

    def __init__(self, turn: Turn, variant: str) -> None:
        self._turn = turn
        self._variant = variant
        self._point: int | None = None
        self._place: Place | None = None
        self._searched = False
        """Whether the lines drawn now were searched already."""
        self._same = 0
        """Number of equal tokens at the start found so far; these are not compared again."""
        self.over = False
        """Whether the result is final."""

    @property
    def known(self) -> bool:
        """Whether the answers have diverged so far."""
        return self._point is not None

    @property
    def ends(self) -> bool:
        """Whether this answer diverges by ending first, so that it has no token to mark."""
        return self._point is not None and self._point >= len(self._turn.answers[self._variant].ids)

    def update(self) -> bool:
        """Compare what arrived; return True once, when a divergence is first found."""
        if self.over:
            return False
        answers = list(self._turn.answers.values())[:2]
        over, compared = self._turn.over, min((len(answer.ids) for answer in answers), default=0)
        if any(answer.variant == self._variant for answer in answers):
            self._point = greedy_divergence(self._turn, same=self._same)
        self._same, self.over = compared, self.known or over
        return self.known

    def moved(self, line: int) -> None:
        """Forget the place if it is in `line` or below, because those lines were redrawn."""
        if self._place is not None and self._place.line >= line:
            self._place = None
        self._searched = False

    def place(self, text: IncrementalMarkdown | PlainText) -> Place | None:
        """Return where the mark is in `text`, or None if there is nothing to mark."""
        if self._point is None or self.ends:
            return None
        if self._place is None and not self._searched:
            self._searched = True
            answer = self._turn.answers[self._variant]
            if answer.thinks_at(self._point):
                return None  # the answers diverge in the reasoning, before this text
            before = neutralise("".join(answer.pieces[: self._point]))
            # A token without text of its own is marked at the next piece with text.
            token = next((piece for piece in answer.pieces[self._point :] if piece.strip()), "")
            start = len(before) + len(token) - len(token.lstrip())
            if start > _SEARCHED_CHARACTERS:
                return None
            lines = (text.line(number).plain for number in range(text.height))
            self._place = find(
                lines,
                neutralise(answer.text[: 2 * _SEARCHED_CHARACTERS]),
                start,
                start + len(neutralise(token.strip())),
            )
        return self._place

    def draw(self, text: IncrementalMarkdown | PlainText, number: int, line: Content) -> Content:
        """Return `line`, line `number` of `text`, with the mark if it is in this line."""
        place = self.place(text)
        if place is None or place.line != number:
            return line
        return line.stylize(MARK_STYLE, place.first, place.last)


def find(lines: Iterable[str], source: str, start: int, end: int) -> Place | None:
    """Return where `source[start:end]` stands in `lines`, which were drawn from `source`.

    Each drawn character matches the next equal character of the source. If nothing of
    `source[start:end]` is drawn (an asterisk, say), the result is the text that follows it. If
    `source[start:end]` spans lines, the result is its part in the first line. Return None if the
    lines end before it.
    """
    at = 0
    for number, line in enumerate(lines):
        first = last = -1
        for column, character in enumerate(line):
            if character.isspace():
                continue
            found = source.find(character, at, at + _MAX_DROPPED)
            if found < 0:
                continue
            at = found + 1
            if first >= 0 and found >= end:
                return Place(number, first, last)
            if found >= start:
                first, last = column if first < 0 else first, column + 1
        if first >= 0:
            return Place(number, first, last)
    return None
