"""Find marks in a text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Iterable


def first_mark(text: str, marks: Iterable[str]) -> tuple[int, str] | None:
    """Return the position of the first of `marks` in `text`, and the mark, or None."""
    return min(((text.find(one), one) for one in marks if one in text), default=None)


def held_back(text: str, marks: Iterable[str]) -> int:
    """Return how many characters at the end of `text` may begin one of `marks`."""
    longest = max((len(one) for one in marks), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(one.startswith(text[-size:]) for one in marks):
            return size
    return 0


class StopStrings:
    """Ends an output at the first stop string, and never passes a part of a stop string on.

    The result does not depend on how the output is cut into pieces: the text that is complete first
    ends it.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = tuple(texts)
        self._rest = ""
        """Text held back because it may be the beginning of a stop string."""
        self.found = False
        """Whether the output has ended."""

    def feed(self, text: str) -> str:
        """Return the part of `text` that belongs to the output, before a stop string."""
        if not self._texts or self.found:
            return "" if self.found else text
        self._rest += text
        before = self.before(self._rest)
        if before is not None:
            self.found = True
            return before
        held = held_back(self._rest, self._texts)
        added = self._rest[: len(self._rest) - held]
        self._rest = self._rest[len(added) :]
        return added

    def before(self, text: str) -> str | None:
        """Return the part of a whole `text` before the stop string; None if it has none."""
        found = [(text.find(one) + len(one), -len(one)) for one in self._texts if one in text]
        if not found:
            return None
        end, length = min(found)
        return text[: end + length]
