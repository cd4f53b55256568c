"""The difference of two texts, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

_WORDS = re.compile(r"\s*(?:\w+|[^\w\s])|\s+$")
"""A word or a punctuation mark with the white space before it, or the white space at the end."""
MOST_WORDS = 6000
"""Largest number of words of each text that are compared: the time grows with its square."""


@dataclass(frozen=True)
class Part:
    """The words of both texts in one part of the comparison; they are equal or they differ."""

    first: str
    second: str

    @property
    def same(self) -> bool:
        """Whether both texts have the same words in this part."""
        return self.first == self.second


def word_diff(first: str, second: str) -> Iterator[Part]:
    """Yield the parts of two texts in order; joined, they give the texts again.

    All words after the first `MOST_WORDS` are one part.
    """
    one, other = _WORDS.findall(first), _WORDS.findall(second)
    matcher = SequenceMatcher(None, one[:MOST_WORDS], other[:MOST_WORDS], autojunk=False)
    for _, a, b, c, d in matcher.get_opcodes():
        yield Part("".join(one[a:b]), "".join(other[c:d]))
    rest = Part("".join(one[MOST_WORDS:]), "".join(other[MOST_WORDS:]))
    if rest.first or rest.second:
        yield rest
