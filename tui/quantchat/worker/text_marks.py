"""Find marks in a text that arrives in pieces. A mark is a string such as a stop string."""

from __future__ import annotations

from collections.abc import Iterable


def first_mark(text: str, marks: Iterable[str]) -> tuple[int, str] | None:
    """Return the index in `text` at which the first of `marks` begins, and the mark, or None."""
    return min(((text.find(one), one) for one in marks if one in text), default=None)


def held_back(text: str, marks: Iterable[str]) -> int:
    """Return how many characters at the end of `text` may be the beginning of one of `marks`."""
    longest = max((len(one) for one in marks), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(one.startswith(text[-size:]) for one in marks):
            return size
    return 0


class StopStrings:
    """Ends an output at the first stop string, and never outputs a part of a stop string.

    The result does not depend on how the output is cut into pieces. If the output contains several
    stop strings, the string whose last character comes first ends the output.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = tuple(texts)
        self._held_back = ""
        """Text held back because it may be the beginning of a stop string."""
        self.found = False
        """Whether the output has ended."""

    def feed(self, text: str) -> str:
        """Return what `text`, the next piece, adds to the output before the stop string."""
        if not self._texts or self.found:
            return "" if self.found else text
        self._held_back += text
        before = self.before(self._held_back)
        if before is not None:
            self.found = True
            return before
        held = held_back(self._held_back, self._texts)
        added = self._held_back[: len(self._held_back) - held]
        self._held_back = self._held_back[len(added) :]
        return added

    def before(self, text: str) -> str | None:
        """Return the part of the whole output `text` before a stop string; None if it has none."""
        found = [(text.find(one) + len(one), -len(one)) for one in self._texts if one in text]
        if not found:
            return None
        end, length = min(found)
        return text[: end + length]
