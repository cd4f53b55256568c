"""Counts the terminal cells that text takes, so that it fits on every terminal.

Terminals disagree: 👩‍💻 takes two cells if the terminal knows joined emoji, else four; a vowel sign
of Devanagari takes one cell in tmux and xterm, but none in Rich's tables. Text that takes more
cells than counted overwrites its neighbour. So this module counts, character by character, the most
cells that any terminal uses. `with_counted_width` then moves the cursor to the counted position,
however many cells the terminal used.

For characters on which terminals agree, the widths come from Rich's tables (made from wcwidth),
which Textual uses for its layout. Grapheme clusters (UAX #29) are found with wcwidth, because Rich
does not recognize Devanagari conjuncts and skin tones.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import accumulate

from rich import _unicode_data, cells

_BASIC_PLANES_END = 0x20000
"""From this code point on, Unicode has only ideographs, tags and private-use characters: no vowel
signs."""
_SKIN_TONES = range(0x1F3FB, 0x1F400)
"""Modifiers of the emoji before them; some terminals draw them as separate emoji."""
_EMOJI_STYLE = "\ufe0f"

_UNSURE = re.compile(
    "[^"
    "\x20-\x7e\xa0-\xac\xae-\u02ff\u0370-\u0377\u037a-\u037f\u0384-\u0482\u048a-\u052f"
    "\u1e00-\u1fbc\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2100-\u218b\u2190-\u2319"
    "\u2400-\u2426\u2460-\u25fc\u27e6-\u27ef\u2800-\u28ff"
    "\u3000-\u3029\u3041-\u3096\u309b-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff60"
    "]"
)
"""Matches a character on whose width terminals may disagree. They agree on Latin, Greek, Cyrillic,
Chinese, Japanese, Korean and line-drawing characters."""


@lru_cache(maxsize=4)
def widest_table(unicode_version: str = "auto") -> cells.CellTable:
    """Return Rich's table with the largest width that any terminal uses for each character."""
    table = _unicode_data.load(unicode_version)
    widths: list[tuple[int, int, int]] = []
    for start, end, width in table.widths:
        if width or start >= _BASIC_PLANES_END:
            widths.append((start, end, width))
            continue
        for code in range(start, end + 1):
            most = _most_cells(code)
            if widths and widths[-1][1:] == (code - 1, most):
                widths[-1] = (widths[-1][0], code, most)
            else:
                widths.append((code, code, most))
    return cells.CellTable(table.unicode_version, widths, table.narrow_to_wide)


def _most_cells(code: int) -> int:
    """Return the most cells that a terminal uses for a character of width 0 in Rich's table."""
    if code in _SKIN_TONES:
        return 2
    if unicodedata.category(chr(code)) == "Mc":
        return 2 if unicodedata.east_asian_width(chr(code)) == "W" else 1
    return 0


@lru_cache(maxsize=1)
def _widened() -> re.Pattern[str]:
    """Return a pattern for a narrow symbol and the selector that makes it a wide emoji (❤️)."""
    narrow = "".join(map(re.escape, sorted(widest_table().narrow_to_wide)))
    return re.compile(f"[{narrow}]{_EMOJI_STYLE}")


def cell_length(text: str, unicode_version: str = "auto") -> int:
    """Return the most cells that `text` takes on any terminal.

    This is the sum over its characters, plus one cell for each symbol that U+FE0F makes wide.
    """
    size = cells.get_character_cell_size
    total = sum([size(character, unicode_version) for character in text])
    return total + (len(_widened().findall(text)) if _EMOJI_STYLE in text else 0)


def grapheme_spans(
    text: str, unicode_version: str = "auto"
) -> tuple[list[tuple[int, int, int]], int]:
    """Return (start, end, cells) of each grapheme of `text`, and the cells of the whole text."""
    from wcwidth import iter_graphemes  # imported late, because the first frame does not need it

    parts = list(iter_graphemes(text))
    ends = list(accumulate(map(len, parts)))
    widths = [cell_length(part, unicode_version) for part in parts]
    return list(zip([0, *ends], ends, widths, strict=False)), sum(widths)


def chop_cells(text: str, width: int, unicode_version: str = "auto") -> list[str]:
    """Cut `text` into lines of at most `width` cells, without cutting graphemes that fit a line.

    No character is dropped. A character wider than `width` gets a line of its own.
    """
    if cells._is_single_cell_widths(text):
        return [text[start : start + width] for start in range(0, len(text), width)]
    lines, line, used = [], "", 0
    for start, end, size in grapheme_spans(text, unicode_version)[0]:
        parts = [(text[start:end], size)]
        if size > width:
            parts = [(one, cell_length(one, unicode_version)) for one in text[start:end]]
        for part, room in parts:
            if used + room > width and line:
                lines.append(line)
                line, used = "", 0
            line += part
            used += room
    return [*lines, line] if line else lines


def with_counted_width(text: str) -> str:
    """Return `text` with escape sequences that make it take exactly its counted cells.

    If terminals may disagree on the width, blank the cells first and put the cursor behind them
    afterwards: DECSC and DECRC (save and restore the cursor), CUF (cursor forward).
    """
    if text.isascii() or not _UNSURE.search(text):
        return text
    room = cells.cell_len(text)
    return f"\x1b7{' ' * room}\x1b8{text}\x1b8\x1b[{room}C" if room else text


def patch_rich() -> None:
    """Make Rich, and so Textual, measure and cut text with the functions of this module."""
    if cells._cell_len is _cell_len:
        return
    cells.load_cell_table = widest_table  # type: ignore[attr-defined]
    cells._cell_len = _cell_len
    cells.split_graphemes = grapheme_spans
    cells.chop_cells = chop_cells
    for measured in (cells.get_character_cell_size, cells.cached_cell_len):
        measured.cache_clear()


def _cell_len(text: str, unicode_version: str) -> int:
    return len(text) if cells._is_single_cell_widths(text) else cell_length(text, unicode_version)
