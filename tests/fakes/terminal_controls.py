"""Splits the bytes sent to a terminal as a terminal would: into text and single controls.

It is strict where terminals are lenient: bytes that are no UTF-8 are an error. It knows both forms
of each control, because some terminals accept either. Sources: ECMA-48 and Paul Williams' parser of
a VT500.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
    r"|(?P<line>\r\n)"
    r"|(?P<csi>(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~])"
    r"|(?P<string>"
    r"(?:\x1b\]|\x9d)[^\x07\x18\x1a\x1b\x9c]*(?:[\x07\x18\x1a\x9c]|\x1b\\|\x1b(?=[^\\]))"  # OSC
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x18\x1a\x1b\x9c]*(?:[\x18\x1a\x9c]|\x1b\\|\x1b(?=[^\\]))"
    r")"
    r"|(?P<escape>\x1b[ -/]*[0-OQ-WYZ\\`-~])"
    r"|(?P<control>[\x00-\x0c\x0e-\x1a\x1c-\x1f\x7f-\x8f\x91-\x97\x99\x9a\x9c]|\r(?=[^\n])"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*(?=[^ -~])|\x1b[ -/]*(?=[^ -~]))"  # one that is broken off
)


@dataclass(frozen=True)
class Token:
    """A run of text, the end of a line, or one control."""

    kind: str
    """text, line, csi, string, escape or control."""
    raw: str

    @property
    def shape(self) -> str:
        """The control without its parameters: no position, no colour."""
        if self.kind == "csi" and re.fullmatch(r"\x1b\[[\d;]+[mHC]", self.raw):
            return f"\x1b[{self.raw[-1]}"
        return self.raw


class Tokens:
    """Splits bytes into tokens as they arrive."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self.pending = ""
        """The beginning of an incomplete control."""

    def feed(self, data: bytes) -> list[Token]:
        """Return the tokens that `data` completes. Raises UnicodeDecodeError."""
        self.pending += self._decoder.decode(data)
        found: list[Token] = []
        end = 0
        while token := _TOKEN.match(self.pending, end):
            assert token.lastgroup is not None
            found.append(Token(token.lastgroup, token[0]))
            end = token.end()
        self.pending = self.pending[end:]
        return found
