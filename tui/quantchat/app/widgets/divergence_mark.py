"""The mark in an answer at the first token that the other one has not.

The answer is drawn as lines of Markdown, in which characters of the source go missing (asterisks,
the address of a link) and others are added (bullets, indents). The place is found again by
following the drawn text through the source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.content import Content

from quantchat.app.incremental_markdown import IncrementalMarkdown
from quantchat.session.conversation import Turn
from quantchat.session.teacher_forcing import greedy_divergence
from quantchat.text import neutralise

STYLE = "bold reverse"
"""Seen without colours too, and in every theme."""

_FAR = 300
"""Characters of the source that may go missing in one place, as the address of a link does. What
is not found within them was added by the drawing."""

_REACH = 20_000
"""Characters of the source through which the drawn text is followed at most: it is done anew
whenever lines have come or changed."""


@dataclass(frozen=True)
class Place:
    """A stretch of one drawn line, by its cells' characters from `first` to before `last`."""

    line: int
    first: int
    last: int


class DivergenceMark:
    """Where the answer of `variant` to `turn` parts from the other one, in its drawn lines."""

    def __init__(self, turn: Turn, variant: str) -> None:
        self._turn = turn
        self._variant = variant
        self._point: int | None = None
        self._place: Place | None = None
        self._looked = False
        """Whether it was looked for, in vain, in what is drawn now."""
        self._same = 0
        """Tokens that both answers are known to begin with: they are not compared again."""
        self.over = False
        """Whether no more will be known."""

    @property
    def known(self) -> bool:
        """Whether it parts, as far as the answers have come."""
        return self._point is not None

    @property
    def ends(self) -> bool:
        """Whether it parts by ending while the other goes on: there is no token to be marked."""
        return self._point is not None and self._point >= len(self._turn.answers[self._variant].ids)

    def look(self) -> bool:
        """Look whether the answers part; True once, when that is first known."""
        if self.over:
            return False
        answers = list(self._turn.answers.values())[:2]
        over, said = self._turn.over, min(len(answer.ids) for answer in answers)
        if any(answer.variant == self._variant for answer in answers):
            self._point = greedy_divergence(self._turn, same=self._same)
        self._same, self.over = said, self.known or over
        return self.known

    def moved(self, line: int) -> None:
        """What was drawn from `line` on may be elsewhere now."""
        if self._place is not None and self._place.line >= line:
            self._place = None
        self._looked = False

    def place(self, text: IncrementalMarkdown) -> Place | None:
        """Where it is in `text`, None where nothing is to be marked there."""
        if self._point is None or self.ends:
            return None
        if self._place is None and not self._looked:
            self._looked = True
            answer = self._turn.answers[self._variant]
            if answer.thinks_at(self._point):
                return None  # the text that is drawn begins later
            before = neutralise("".join(answer.pieces[: self._point]))
            # A token that made no text final begins with the piece that does.
            token = next((piece for piece in answer.pieces[self._point :] if piece.strip()), "")
            start = len(before) + len(token) - len(token.lstrip())
            if start > _REACH:
                return None
            lines = (text.line(number).plain for number in range(text.height))
            self._place = find(
                lines,
                neutralise(answer.text[: 2 * _REACH]),
                start,
                start + len(neutralise(token.strip())),
            )
        return self._place

    def draw(self, text: IncrementalMarkdown, number: int, line: Content) -> Content:
        """`line`, which is line `number` of `text`, with the mark if it is there."""
        place = self.place(text)
        if place is None or place.line != number:
            return line
        return line.stylize(STYLE, place.first, place.last)


def find(lines: Iterable[str], source: str, start: int, end: int) -> Place | None:
    """Where in `lines`, drawn from `source`, stands `source[start:end]`: its first line of it.

    Each character that is drawn is taken for the next one like it in the source. Where nothing of
    the stretch is drawn, as of an asterisk, it is what comes next. None behind the end.
    """
    at = 0
    for number, line in enumerate(lines):
        first = last = -1
        for column, character in enumerate(line):
            if character.isspace():
                continue
            found = source.find(character, at, at + _FAR)
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
