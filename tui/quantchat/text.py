"""Text from outside, made safe for a terminal.

A model, a file name or an exception may contain control characters. A terminal would obey them:
move the cursor, write the clipboard (OSC 52) or change the window's title (OSC 0). Bidirectional
controls would reorder the text on the screen, and invisible characters would hide parts of it. This
module replaces each such character by a visible mark. It looks at one character at a time, so the
result does not depend on how the text was split into chunks.

Sources: ECMA-48 (C0 and C1 controls), Unicode UAX #9 (bidirectional formatting) and UAX #44
(Default_Ignorable_Code_Point and the general category Cf, of Unicode 16).
"""

from __future__ import annotations

import re

_INVISIBLE = {
    *(0x00AD, 0x034F, 0x061C),  # soft hyphen, combining grapheme joiner, Arabic letter mark
    *(0x115F, 0x1160, 0x3164, 0xFFA0),  # Hangul fillers
    *(0x17B4, 0x17B5, *range(0x180B, 0x1810)),  # Khmer and Mongolian signs that have no glyph
    *(0x200B, 0x200E, 0x200F),  # zero-width space, left-to-right and right-to-left marks
    *range(0x2028, 0x202F),  # line and paragraph separators; embeddings and overrides
    *range(0x2060, 0x2070),  # word joiner, invisible operators, isolates, deprecated controls
    *range(0xD800, 0xE000),  # a lone surrogate cannot be written at all
    *(*range(0xFE00, 0xFE0E), 0xFEFF),  # variation selectors, byte order mark
    *range(0xFFF0, 0xFFFC),  # interlinear annotation, and code points reserved beside it
    *range(0x13430, 0x13440),  # joiners of hieroglyphs
    *range(0x1BCA0, 0x1BCA4),  # shorthand format controls
    *range(0x1D173, 0x1D17B),  # musical format controls
    *range(0xE0000, 0xE1000),  # tags, more variation selectors, reserved code points
}


def neutralise(text: str) -> str:
    """Return `text` with a visible mark in place of each control and invisible character.

    The controls are C0, C1, DEL and the bidirectional controls. Newline and tab stay. So do the
    characters that spelling needs: the joiners U+200C and U+200D (Persian, Hindi, emoji), and
    U+FE0E and U+FE0F, which choose between a plain sign and an emoji.
    `neutralise(a + b)` equals `neutralise(a) + neutralise(b)`.
    """
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_marks)


def without_controls(text: str) -> str:
    """Return `text` without the characters that `neutralise` marks: safe to paste anywhere.

    Newline and tab stay. ESC [ 201 ~ in the text would end a bracketed paste early, and a shell
    would run the lines after it.
    """
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_left_out)


class _LeftOut(dict[int, "int | None"]):
    """Maps a code point that `neutralise` marks to None, and any other to itself."""

    def __missing__(self, code: int) -> int | None:
        self[code] = kept = code if _mark(code) == chr(code) else None
        return kept


class _Marks(dict[int, str]):
    """Maps a code point to its replacement, computed on first use: most code points never occur."""

    def __missing__(self, code: int) -> str:
        self[code] = mark = _mark(code)
        return mark


def _mark(code: int) -> str:
    # U+2400 + n is the "symbol for" each C0 control: ␀ ␁ … ␛ … ␟, and U+2421 ␡ for DEL.
    if code < 0x20 and chr(code) not in "\t\n":
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if 0x80 <= code < 0xA0:
        return f"⟨{code:02X}⟩"
    return f"⟨{code:04X}⟩" if code in _INVISIBLE else chr(code)


_marks = _Marks()
_left_out = _LeftOut()


def one_line(text: str) -> str:
    """Return `text` neutralised and on one line: each run of white space becomes one space."""
    return neutralise(" ".join(text.split()))


def flat(text: str) -> str:
    """Return `text` neutralised and on one line, with a space for each character of white space.

    Pieces of a line can be made harmless one by one this way, and then joined.
    """
    return neutralise(_SPACE.sub(" ", text))


_SPACE = re.compile(r"\s")
