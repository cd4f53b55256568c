"""Text from outside, made safe for a terminal.

A model, a file name or an exception may carry control characters. Sent raw, they would move the
cursor, write the clipboard (OSC 52) or change the window's title (OSC 0); bidirectional controls
would reorder what is read. Each such character becomes a visible mark here, one by one, so that
the result does not depend on how the text was cut into chunks.

Sources: ECMA-48 (C0 and C1 controls), Unicode UAX #9 (bidirectional formatting).
"""

from __future__ import annotations

_KEPT = {0x09, 0x0A}  # tab and newline

# U+2400 + n is the "symbol for" each C0 control: ␀ ␁ … ␛ … ␟, and U+2421 ␡ for DEL.
_MARKS: dict[int, str] = {code: chr(0x2400 + code) for code in range(0x20) if code not in _KEPT}
_MARKS[0x7F] = "\u2421"
_MARKS.update({code: f"⟨{code:02X}⟩" for code in range(0x80, 0xA0)})
_MARKS.update(
    {
        code: f"⟨{code:04X}⟩"
        for code in (
            0x061C,  # Arabic letter mark
            0x200E,  # left-to-right and right-to-left marks
            0x200F,
            0x2028,  # line and paragraph separators
            0x2029,
            *range(0x202A, 0x202F),  # embeddings and overrides
            *range(0x2066, 0x206A),  # isolates
            *range(0xD800, 0xE000),  # a lone surrogate cannot be written at all
        )
    }
)


def neutralise(text: str) -> str:
    """Return `text` with every C0, C1, DEL and bidi control as a visible mark.

    Newline, tab and the joiner that emoji need (U+200D) stay. `neutralise(a + b)` equals
    `neutralise(a) + neutralise(b)`.
    """
    return text.translate(_MARKS)


def one_line(text: str) -> str:
    """Return `text` neutral and on one line: runs of white space become one space."""
    return neutralise(" ".join(text.split()))
